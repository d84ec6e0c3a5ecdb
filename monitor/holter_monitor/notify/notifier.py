"""The port of notifiers, and what an HTTP answer means to a delivery."""

from __future__ import annotations

from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import ClassVar, Protocol

import httpx

from holter_monitor.notify.errors import DeliveryFailed, DeliveryRefused
from holter_monitor.notify.limits import Limits
from holter_monitor.notify.notice import Notice

_AGAIN = (408, 423, 425, 429)
_LONGEST_WAIT = 3600.0


class Notifier(Protocol):
    """One way to tell somebody. A frozen dataclass: its fields are what a policy may say about it."""

    kind: ClassVar[str]
    limits: ClassVar[Limits]

    def send(self, notice: Notice, http: httpx.Client) -> str | None:
        """One try. The receiver's own name for the message, where it gives one. Raises `DeliveryFailed` or `DeliveryRefused`."""
        ...


def check(answer: httpx.Response) -> httpx.Response:
    """The answer, if it is a success. 408, 423, 425, 429 and 5xx may get better; everything else will not."""
    if answer.is_success:
        return answer
    reason = f"HTTP {answer.status_code} {answer.text[:200]!r}"
    if answer.status_code in _AGAIN or answer.is_server_error:
        raise DeliveryFailed(reason, retry_after(answer))
    raise DeliveryRefused(reason)


def retry_after(answer: httpx.Response) -> float | None:
    """`Retry-After` in seconds, whether it is a number or a date; None if absent or garbage. At most an hour."""
    value = answer.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), _LONGEST_WAIT)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    # Judged by the receiver's own clock, if it tells it: ours may be off by minutes.
    try:
        now = parsedate_to_datetime(answer.headers["date"])
    except (KeyError, ValueError):
        now = datetime.now(timezone.utc)
    if (at.tzinfo is None) != (now.tzinfo is None):
        return None
    return min(max(0.0, (at - now).total_seconds()), _LONGEST_WAIT)
