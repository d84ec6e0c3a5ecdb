"""PagerDuty Events v2: trigger, acknowledge and resolve, tied together by the incident's id as `dedup_key`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, ClassVar

import httpx
from pydantic import SecretStr

from holter_monitor.notify.limits import Limits
from holter_monitor.notify.notice import Notice
from holter_monitor.notify.notifier import check
from holter_monitor.notify.render import clean, cut, headline, text

_LARGEST = 500_000
"""PagerDuty takes 512 KB."""
_ACTIONS = {"acknowledge": "acknowledge", "resolve": "resolve"}


@dataclass(frozen=True, kw_only=True)
class PagerDuty:
    """One integration key. No digest: each incident is resolved by its own key."""

    kind: ClassVar[str] = "pagerduty"
    limits: ClassVar[Limits] = Limits(per_second=100 / 60, burst=5)

    routing_key: SecretStr
    url: str = "https://events.pagerduty.com/v2/enqueue"
    """For the EU region: https://events.eu.pagerduty.com/v2/enqueue"""

    def send(self, notice: Notice, http: httpx.Client) -> str | None:
        event = {"routing_key": self.routing_key.get_secret_value(), **payload(notice)}
        check(http.post(self.url, content=json.dumps(event).encode(), headers={"Content-Type": "application/json"}))
        return notice.subject


def payload(notice: Notice) -> dict[str, Any]:
    """The event without its key, within PagerDuty's limits (developer.pagerduty.com/docs/events-api-v2/trigger-events)."""
    action = _ACTIONS.get(notice.transition, "trigger")
    event: dict[str, Any] = {"event_action": action, "dedup_key": notice.subject[:255]}
    if action != "trigger":
        return event
    details = {"message": text(notice), "causes": list(notice.causes), "evidence": dict(notice.evidence or {}), "incident": notice.incident}
    event |= {
        "client": "Holter",
        "payload": {
            "summary": cut(f"{headline(notice)}: {clean(notice.summary)}", 1024),
            "source": cut(f"{notice.project}/{notice.run_name}", 255),
            "severity": notice.severity,
            "timestamp": datetime.fromtimestamp(notice.created, timezone.utc).isoformat(),
            "component": cut(", ".join(notice.nodes), 255) or "run",
            "group": cut(notice.project, 255),
            "class": notice.kind,
            "custom_details": details,
        },
    }
    if notice.link:
        event |= {"client_url": notice.link, "links": [{"href": notice.link, "text": "Open in Holter"}]}
    if len(json.dumps(event)) > _LARGEST:
        event["payload"]["custom_details"] = {"message": cut(text(notice), 10_000), "incident": notice.incident}
    return event
