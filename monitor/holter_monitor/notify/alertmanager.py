"""Alertmanager's v2 API: Holter's incidents as alerts, for those who route, group and silence there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, ClassVar

import httpx
from pydantic import SecretStr

from holter_monitor.notify.limits import Limits
from holter_monitor.notify.notice import Notice
from holter_monitor.notify.notifier import check
from holter_monitor.notify.render import clean, cut, headline, text

_LASTS = 7 * 86400.0
"""Alertmanager forgets an alert that has no end after five minutes; ours says its own end when it resolves."""
_SEVERITIES = ("info", "warning", "critical")


@dataclass(frozen=True, kw_only=True)
class Alertmanager:
    """One Alertmanager (or several, one receiver each: it removes the doubles itself). It keeps alerts in memory only; a route's
    `repeat` is how soon after a restart it hears of a lasting incident again."""

    kind: ClassVar[str] = "alertmanager"
    limits: ClassVar[Limits] = Limits(per_second=50.0, burst=100)

    url: str
    """Its base, like http://alertmanager:9093"""
    token: SecretStr | None = None
    """Sent as `Authorization: Bearer`, where a proxy asks for it."""

    def send(self, notice: Notice, http: httpx.Client) -> str | None:
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token.get_secret_value()}"}
        check(http.post(f"{self.url.rstrip('/')}/api/v2/alerts", json=payload(notice), headers=headers))
        return notice.subject


def payload(notice: Notice) -> list[dict[str, Any]]:
    """The alert as it is now. Severity and kind are labels, and labels are its identity there: the alert of a lower severity, or of an
    earlier kind, is ended."""
    is_over = notice.transition == "resolve"
    alerts = [_alert(notice, notice.severity, notice.updated if is_over else notice.updated + _LASTS)]
    if notice.transition in ("update", "resolve"):
        lower = _SEVERITIES[: _SEVERITIES.index(notice.severity)]
        alerts += [_alert(notice, severity, notice.updated) for severity in lower if severity != "info"]
    for kind in notice.earlier_kinds:  # the same trouble under the name that it had before its cause was found
        alerts += [_alert(replace(notice, kind=kind), severity, notice.updated) for severity in _SEVERITIES if severity != "info"]
    return alerts


def _alert(notice: Notice, severity: str, ends: float) -> dict[str, Any]:
    labels = {
        "alertname": "HolterTest" if notice.transition == "test" else "HolterIncident",
        "kind": notice.kind,
        "severity": severity,
        "project": notice.project,
        "run": notice.run_name,
        "incident": notice.subject,
    }
    return {
        "labels": {name: cut(clean(value), 200) or "none" for name, value in labels.items()},
        "annotations": {"summary": cut(f"{headline(notice)}: {clean(notice.summary)}", 1000), "description": cut(text(notice), 8000)},
        "startsAt": _rfc3339(notice.created),
        "endsAt": _rfc3339(max(ends, notice.created + 0.001)),
        "generatorURL": notice.link,
    }


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).isoformat()
