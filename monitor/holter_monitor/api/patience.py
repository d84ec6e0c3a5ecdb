"""uvicorn's HTTP protocol with deadlines: a client that dribbles its head or its body is cut. An application never sees a half head."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class PatientProtocol(HttpToolsProtocol):
    """`patient` makes the class with its limits. A request that comes whole, as nearly all do, sets no timer."""

    head_seconds: ClassVar[float] = 10.0
    body_seconds: ClassVar[float] = 15.0
    _deadline: asyncio.TimerHandle | None = None
    _expected: str | None = None
    """What the running deadline is for: the rest of a "head", of a "body", or nothing."""
    _reading: str | None = None
    """In the middle of what the parser is."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect("head")

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._reading != self._expected:
            self._expect(self._reading)

    def on_message_begin(self) -> None:
        self._reading = "head"
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._reading = "body"
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._reading = None
        super().on_message_complete()

    def _expect(self, rest: str | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._expected = rest
        if rest is not None:
            self._deadline = self.loop.call_later(self.head_seconds if rest == "head" else self.body_seconds, self.transport.abort)


def patient(head_seconds: float, body_seconds: float) -> type[asyncio.Protocol]:
    return type("Patient", (PatientProtocol,), {"head_seconds": head_seconds, "body_seconds": body_seconds})
