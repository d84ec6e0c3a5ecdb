"""A generic webhook: the notice as JSON, signed, with a key by which a repeat is known.

Receivers verify `Holter-Signature: v1=<hex>`, the HMAC-SHA256 of `<Holter-Timestamp>.<body>` under the shared secret, refuse timestamps
older than five minutes, and drop an `Idempotency-Key` that they have seen.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import httpx
from pydantic import SecretStr

from holter_monitor.notify.limits import Limits
from holter_monitor.notify.notice import Notice
from holter_monitor.notify.notifier import check
from holter_monitor.notify.render import headline, text

_UNSIGNED = SecretStr("")


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """One URL that is posted to. Without a secret the body is not signed."""

    kind: ClassVar[str] = "webhook"
    limits: ClassVar[Limits] = Limits(per_second=10.0, burst=20)

    url: SecretStr
    secret: SecretStr = _UNSIGNED

    def send(self, notice: Notice, http: httpx.Client) -> str | None:
        body = json.dumps(payload(notice), ensure_ascii=False, allow_nan=False).encode()
        stamp = str(int(time.time()))
        headers = {"Content-Type": "application/json", "Idempotency-Key": notice.key, "Holter-Timestamp": stamp}
        if self.secret.get_secret_value():
            headers["Holter-Signature"] = signature(self.secret.get_secret_value(), stamp, body)
        check(http.post(self.url.get_secret_value(), content=body, headers=headers))
        return None


def payload(notice: Notice) -> dict[str, Any]:
    """All facts of the notice, and the message in words."""
    return {**notice.to_json(), "headline": headline(notice), "text": text(notice), "gpu_hours": notice.gpu_hours}


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """`v1=` and the HMAC-SHA256 of `timestamp.body`, hex."""
    return "v1=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
