"""From what a policy says of its receivers to notifiers and their workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import httpx
from pydantic import TypeAdapter, ValidationError

from holter_monitor.notify import NOTIFIERS, Notifier
from holter_monitor.notify.apprise import Apprise
from holter_monitor.notify.errors import DeliveryFailed, DeliveryRefused
from holter_monitor.notify.http import client
from holter_monitor.notify.notice import example
from holter_monitor.notify.outbox import Outbox, Worker


def notifier(name: str, facts: Mapping[str, Any], *, allow_private: bool = False) -> Notifier:
    """The notifier of one receiver. `allow_private` is for those that make connections of their own.

    Raises `ValueError` that names receiver, field and remedy, never the value: it may be a secret.
    """
    facts = dict(facts)
    kind = str(facts.pop("type", None))
    if kind not in NOTIFIERS:
        raise ValueError(f"receivers.{name}.type: {kind!r} is not a type of receiver; it is one of {', '.join(NOTIFIERS)}")
    known = {field.name for field in fields(NOTIFIERS[kind])}  # type: ignore[arg-type]
    unknown = sorted(set(facts) - known)
    if unknown:
        raise ValueError(f"receivers.{name}.{unknown[0]}: a {kind} receiver has no such word; it has {', '.join(sorted(known)) or 'none'}")
    try:
        made = TypeAdapter(NOTIFIERS[kind]).validate_python(facts)
        return replace(made, allow_private=True) if allow_private and isinstance(made, Apprise) else made
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"receivers.{name}.{field}: {first['msg']}") from None


def workers(
    receivers: Mapping[str, Mapping[str, Any]],
    outbox: Outbox,
    *,
    allow_private: bool,
    link: str = "",
    picture: Callable[[str], bytes | None] | None = None,
) -> list[Worker]:
    """One worker for each receiver, each with an HTTP client of its own. `picture` draws the evidence of an incident."""
    found = []
    for name, facts in receivers.items():
        made = notifier(name, facts, allow_private=allow_private)
        http = client(allow_private=allow_private)
        found.append(Worker(receiver=name, notifier=made, outbox=outbox, http=http, link=link, picture=picture))
    return found


def tried(name: str, facts: Mapping[str, Any], http: httpx.Client, *, allow_private: bool) -> str | None:
    """Send a message that says it is a test. The answer is why it was not taken; None where it was."""
    try:
        notifier(name, facts, allow_private=allow_private).send(example(time.time()), http)
    except (DeliveryFailed, DeliveryRefused) as error:
        return str(error)
    return None
