"""E-mail and a hundred other services through Apprise, which speaks their protocols (github.com/caronc/apprise/wiki lists the URLs)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, ClassVar

import httpx
from pydantic import SecretStr

from holter_monitor.notify.errors import DeliveryFailed, DeliveryRefused
from holter_monitor.notify.http import resolve
from holter_monitor.notify.limits import Limits
from holter_monitor.notify.notice import Notice
from holter_monitor.notify.render import headline, text

# At lower levels they log whole URLs, which are secrets here.
for _name in ("apprise", "urllib3.connectionpool"):
    logging.getLogger(_name).addFilter(lambda record: record.levelno >= logging.WARNING)

_TYPES = {"critical": "failure", "warning": "warning", "info": "info"}


@dataclass(frozen=True, kw_only=True)
class Apprise:
    """One Apprise URL, like mailtos://user:password@example.com?to=oncall@example.com. Apprise only says whether it worked, so every
    failure is tried again. Its host is checked like that of any receiver, but the connection is Apprise's own."""

    kind: ClassVar[str] = "apprise"
    limits: ClassVar[Limits] = Limits(per_second=0.5, burst=3, digest_from=5, shows_images=True)

    url: SecretStr
    allow_private: bool = False

    def send(self, notice: Notice, http: httpx.Client) -> str | None:
        import apprise

        service = apprise.Apprise.instantiate(self.url.get_secret_value(), suppress_exceptions=True)
        if service is None:
            raise DeliveryRefused("the Apprise URL cannot be read; github.com/caronc/apprise/wiki says how each service is written")
        host = getattr(service, "smtp_host", None) or getattr(service, "host", None)
        if host:
            resolve(str(host), 0, allow_private=self.allow_private)
        if not service.notify(**payload(notice), attach=_plot(notice) if service.attachment_support else None):
            raise DeliveryFailed(f"Apprise could not deliver through {service.service_name}")
        return None


def _plot(notice: Notice) -> Any:
    """The evidence as a file in memory, for the services that take files (e-mail does)."""
    if notice.image is None:
        return None
    from apprise import AppriseAttachment
    from apprise.attachment.memory import AttachMemory

    memory: Any = AttachMemory
    return AppriseAttachment(paths=[memory(content=notice.image, name="evidence.png", mimetype="image/png")])


def payload(notice: Notice) -> dict[str, Any]:
    """Apprise's three words for a message."""
    notify_type = "success" if notice.transition == "resolve" else _TYPES[notice.severity]
    return {"title": headline(notice), "body": text(notice), "notify_type": notify_type}
