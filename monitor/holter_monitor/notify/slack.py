"""Slack through an incoming webhook: Block Kit, one message a notice, a digest when many come at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import httpx
from pydantic import SecretStr

from holter_monitor.notify.errors import DeliveryFailed, DeliveryRefused
from holter_monitor.notify.limits import Limits
from holter_monitor.notify.notice import Notice
from holter_monitor.notify.notifier import check
from holter_monitor.notify.render import cut, headline, markdown

LIMITS = Limits(per_second=1.0, burst=3, digest_from=5)
"""Slack takes one message a second and channel, with short bursts (docs.slack.dev/apis/web-api/rate-limits)."""
_SECTION = 3000
_BLOCKS = 50
_MARKS = {"critical": ":red_circle:", "warning": ":large_yellow_circle:", "info": ":large_blue_circle:"}
# What Slack answers when asking again cannot help (docs.slack.dev/messaging/sending-messages-using-incoming-webhooks).
_FINAL = [
    "invalid_payload",
    "invalid_token",
    "no_service",
    "no_team",
    "team_disabled",
    "channel_not_found",
    "channel_is_archived",
    "action_prohibited",
    "posting_to_general_channel_denied",
    "too_many_attachments",
    "user_not_found",
    "no_active_hooks",
    "not_in_channel",
    "is_archived",
    "invalid_auth",
    "account_inactive",
    "token_revoked",
    "token_expired",
    "missing_scope",
    "not_authed",
    "invalid_blocks",
    "msg_too_long",
    "no_text",
    "restricted_action",
    "invalid_arguments",
]


@dataclass(frozen=True, kw_only=True)
class Slack:
    """An incoming webhook. Its URL is its key: it appears in no log and no error."""

    kind: ClassVar[str] = "slack"
    limits: ClassVar[Limits] = LIMITS

    webhook_url: SecretStr

    def send(self, notice: Notice, http: httpx.Client) -> str | None:
        answer = check(http.post(self.webhook_url.get_secret_value(), json=payload(notice)))
        if answer.text.strip() != "ok":
            raise refusal(answer.text)
        return None


def payload(notice: Notice) -> dict[str, Any]:
    """The message: a header, what a person asks in the order of asking, a button to the incident."""
    mark = ":white_check_mark:" if notice.transition == "resolve" else _MARKS[notice.severity]
    blocks: list[dict[str, Any]] = [{"type": "header", "text": {"type": "plain_text", "text": cut(headline(notice), 150), "emoji": True}}]
    blocks += [{"type": "section", "text": {"type": "mrkdwn", "text": part}} for part in _parts(markdown(notice))]
    blocks = blocks[: _BLOCKS - 2]
    if notice.link.startswith(("https://", "http://")) and len(notice.link) <= _SECTION:
        button = {"type": "button", "text": {"type": "plain_text", "text": "Open in Holter"}, "url": notice.link, "action_id": "open"}
        blocks.append({"type": "actions", "elements": [button]})
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": f"{mark} Holter · incident {notice.incident}"}]})
    return {"text": escaped(f"{headline(notice)}: {cut(notice.summary, 500)}"), "blocks": blocks, "unfurl_links": False}


def escaped(words: str) -> str:
    """For places that Slack reads as mrkdwn (docs.slack.dev/messaging/formatting-message-text#escaping)."""
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def refusal(body: str) -> DeliveryFailed | DeliveryRefused:
    """What an error inside a 200 means: Slack says `ok` or JSON with `"ok": true`; anything else was not delivered."""
    reason = f"Slack answered 200 and {body[:100]!r}"
    return DeliveryRefused(reason) if any(word in body[:500] for word in _FINAL) else DeliveryFailed(reason)


def _parts(words: str) -> Iterator[str]:
    """The lines, in sections of at most 3,000 characters, cut between lines (and never inside an escape such as `&amp;`)."""
    part = ""
    for line in words.splitlines():
        short = _line(line)
        if len(part) + len(short) + 1 > _SECTION:
            yield part
            part = ""
        part = f"{part}\n{short}" if part else short
    if part:
        yield part


def _line(line: str) -> str:
    if len(line) <= 800:
        return line
    short = line[:799]
    tail = short.rfind("&")
    return (short[:tail] if tail > 790 else short) + "…"
