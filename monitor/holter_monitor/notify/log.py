"""The log line: the receiver that needs nothing, and the last that still works."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import httpx

from holter_monitor.notify.limits import Limits
from holter_monitor.notify.notice import Notice
from holter_monitor.notify.render import headline, text

logger = logging.getLogger("holter.alerts")


@dataclass(frozen=True, kw_only=True)
class Log:
    """One line a notice, on the logger `holter.alerts`."""

    kind: ClassVar[str] = "log"
    limits: ClassVar[Limits] = Limits(per_second=1000, burst=1000)

    def send(self, notice: Notice, http: httpx.Client) -> str | None:
        level = logging.INFO if notice.transition in ("resolve", "acknowledge", "test") else logging.WARNING
        logger.log(level, "%s", payload(notice))
        return None


def payload(notice: Notice) -> str:
    """The message in one line: what users wrote cannot start a line of its own."""
    return " | ".join([headline(notice), *(line.strip() for line in text(notice).splitlines())])
