"""A notice in words: the templates of `alerts/templates/`, with the filters that they are written in."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from holter_monitor.notify.notice import Notice
from holter_monitor.ranges import folded, spans
from holter_monitor.shipped import shipped

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def headline(notice: Notice) -> str:
    """One line, at most 200 characters: how bad, what, which run, since when."""
    return cut(" ".join(_plain("headline").render(notice=notice).split()), 200)


def text(notice: Notice) -> str:
    """The whole message as plain text: what, since when, which rank, why, what it costs, what to do, where to look."""
    return _tidy(_plain("message").render(notice=notice))


def markdown(notice: Notice) -> str:
    """The same in Slack's mrkdwn, what users wrote escaped: nobody can ping a channel or plant a link through a run's name."""
    return _tidy(_slack("slack").render(notice=notice))


def cut(words: str, length: int) -> str:
    """At most `length` characters, ended by an ellipsis where something is missing."""
    return words if len(words) <= length else words[: length - 1].rstrip() + "…"


def cut_bytes(words: str, length: int) -> str:
    """At most `length` bytes of UTF-8, never through the middle of a character."""
    encoded = words.encode()
    return words if len(encoded) <= length else encoded[: length - 3].decode(errors="ignore") + "…"


def clean(value: object) -> str:
    """Text without control characters, line breaks that are none, and marks that turn the direction of reading."""
    return _CONTROL.sub("", str(value))


def duration(value: float | None) -> str:
    """Seconds for people: 45 s, 12 min, 3.4 h, 2.1 days."""
    if value is None:
        return "unknown"
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (172800, 3600, "h")):
        if value < limit:
            return f"{value / unit:.3g} {name}"
    return f"{value / 86400:.3g} days"


def clock(value: float) -> str:
    return datetime.fromtimestamp(value, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def _escape_slack(value: object) -> str:
    return clean(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _tidy(words: str) -> str:
    return re.sub(r"\n{2,}", "\n", words).strip()


@lru_cache(maxsize=8)
def _environment(folder: Path, finalize: Callable[[Any], str]) -> ImmutableSandboxedEnvironment:
    # Autoescape is for HTML; none of these messages is. What users wrote goes through `finalize` instead, every value of it.
    environment = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(folder),
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    environment.filters.update(spans=spans, folded=folded, duration=duration, clock=clock)
    return environment


def _plain(name: str) -> Any:
    return _environment(shipped("alerts") / "templates", clean).get_template(f"{name}.j2")


def _slack(name: str) -> Any:
    return _environment(shipped("alerts") / "templates", _escape_slack).get_template(f"{name}.j2")
