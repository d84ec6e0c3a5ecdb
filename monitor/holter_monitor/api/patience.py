"""uvicorn's HTTP protocol with deadlines: a client that dribbles its head or its body is cut. An application never sees a half head."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class PatientProtocol(HttpToolsProtocol):
    """`patient` makes the class with its limits."""

    head_seconds: ClassVar[float] = 10.0
    body_seconds: ClassVar[float] = 15.0
    _deadline: asyncio.TimerHandle | None = None
    _is_reading = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect(self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and not self._is_reading:  # the next request of a kept connection
            self._expect(self.head_seconds)
        super().data_received(data)

    def on_headers_complete(self) -> None:
        self._is_reading = True
        self._expect(self.body_seconds)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_reading = False
        self._expect(None)
        super().on_message_complete()

    def _expect(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._cut)

    def _cut(self) -> None:
        self._deadline = None
        self.transport.abort()


def patient(head_seconds: float, body_seconds: float) -> type[asyncio.Protocol]:
    return type("Patient", (PatientProtocol,), {"head_seconds": head_seconds, "body_seconds": body_seconds})
