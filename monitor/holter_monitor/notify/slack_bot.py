"""Slack through a bot token: one thread an incident. The first message is kept up to date; changes are replies under it; the plot is an image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import httpx
from pydantic import SecretStr

from holter_monitor.notify.errors import DeliveryError, DeliveryFailed
from holter_monitor.notify.limits import Limits
from holter_monitor.notify.notice import Notice
from holter_monitor.notify.notifier import check
from holter_monitor.notify.render import headline
from holter_monitor.notify.slack import LIMITS, escaped, payload, refusal


@dataclass(frozen=True, kw_only=True)
class SlackBot:
    """A bot with the scopes `chat:write` and, for the plot, `files:write`, invited to the channel."""

    kind: ClassVar[str] = "slack_bot"
    limits: ClassVar[Limits] = replace(LIMITS, shows_images=True)

    token: SecretStr
    channel: str
    """The channel's id, like C0123456789; a name works for posting only."""
    url: str = "https://slack.com/api"

    def send(self, notice: Notice, http: httpx.Client) -> str | None:
        if notice.thread is None:
            said = self._call(http, "chat.postMessage", {"channel": self.channel, **payload(notice)})
            thread = f"{said.get('channel', self.channel)}:{said['ts']}"
            self._upload(notice, http, thread)
            return thread
        channel, _, stamp = notice.thread.partition(":")
        # The first message always shows how things are now; the reply says what changed, and pings who follows the thread.
        self._call(http, "chat.update", {"channel": channel, "ts": stamp, **payload(notice)})
        self._call(http, "chat.postMessage", {"channel": channel, "thread_ts": stamp, **reply(notice)})
        return notice.thread

    def _upload(self, notice: Notice, http: httpx.Client, thread: str) -> None:
        """The plot under the message. It is a help, not the alert: without it, the message has still been delivered."""
        if notice.image is None:
            return
        channel, _, stamp = thread.partition(":")
        try:
            place = self._call(http, "files.getUploadURLExternal", params={"filename": "evidence.png", "length": str(len(notice.image))})
            check(http.post(place["upload_url"], content=notice.image))
            files = [{"id": place["file_id"], "title": headline(notice)}]
            self._call(http, "files.completeUploadExternal", {"files": files, "channel_id": channel, "thread_ts": stamp})
        except (DeliveryError, KeyError):
            return

    def _call(
        self, http: httpx.Client, method: str, body: dict[str, Any] | None = None, params: dict[str, str] | None = None
    ) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.token.get_secret_value()}"}
        verb = "GET" if body is None else "POST"
        answer = check(http.request(verb, f"{self.url}/{method}", json=body, params=params, headers=headers))
        try:
            said = answer.json()
        except ValueError:
            raise DeliveryFailed(f"{method}: not JSON: {answer.text[:100]!r}") from None
        if not isinstance(said, dict) or said.get("ok") is not True:
            raise refusal(answer.text)
        return said


def reply(notice: Notice) -> dict[str, Any]:
    """What changed, for the thread."""
    words = headline(notice) + (f": {notice.note}" if notice.note else "") + (f" (by {notice.actor})" if notice.actor else "")
    return {"text": escaped(words)}
