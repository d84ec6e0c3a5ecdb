"""Notices and how they are delivered: a notifier a file, listed in `NOTIFIERS`.

A notifier is a frozen dataclass that is its own configuration, with a pure `payload(notice)` and one `send(notice, http)`. It never retries
or sleeps: it raises `DeliveryFailed` (try again) or `DeliveryRefused` (never will), and the outbox's worker does the rest.
"""

from __future__ import annotations

from holter_monitor.notify.alertmanager import Alertmanager
from holter_monitor.notify.apprise import Apprise
from holter_monitor.notify.errors import DeliveryFailed, DeliveryRefused
from holter_monitor.notify.limits import Limits
from holter_monitor.notify.log import Log
from holter_monitor.notify.notice import Notice
from holter_monitor.notify.notifier import Notifier
from holter_monitor.notify.pagerduty import PagerDuty
from holter_monitor.notify.slack import Slack
from holter_monitor.notify.slack_bot import SlackBot
from holter_monitor.notify.webhook import Webhook

NOTIFIERS: dict[str, type[Notifier]] = {kind.kind: kind for kind in (Log, Slack, SlackBot, PagerDuty, Alertmanager, Webhook, Apprise)}
"""By the word that a policy's `type:` says."""

__all__ = ["NOTIFIERS", "DeliveryFailed", "DeliveryRefused", "Limits", "Notice", "Notifier"]
