"""`GET /stream`: what happens now, as server-sent events: `step`, `run` and `incidents` messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import msgspec
from fastapi import APIRouter
from holter.frame import finite
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from holter_monitor.api.callers import Caller
from holter_monitor.api.parts import Parts, TheCaller, TheParts
from holter_monitor.errors import Problem

router = APIRouter(prefix="/api/v1", tags=["stream"])
KEEP_ALIVE_SECONDS = 15.0
LISTENERS = 200
READ_SECONDS = 10.0


class Impatient(StreamingResponse):
    """Cuts a reader that does not take a message within `READ_SECONDS`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def hurried(message: Message) -> None:
            await asyncio.wait_for(send(message), READ_SECONDS)

        with suppress(asyncio.TimeoutError):
            await super().__call__(scope, receive, hurried)


@router.get("/stream", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}})
async def stream(parts: TheParts, caller: TheCaller, run: str | None = None) -> StreamingResponse:
    """Live, of one run or of all. A reader that falls behind is cut; what it missed is in the other answers."""
    if parts.broadcast.num_listeners >= LISTENERS:
        raise Problem(503, "Too many listeners", remedy="come back", retry_after=10)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Impatient(_messages(parts, caller, run), media_type="text/event-stream", headers=headers)


async def _messages(parts: Parts, caller: Caller, run: str | None) -> AsyncIterator[bytes]:
    with parts.broadcast.listen() as queue:
        yield b"retry: 2000\n\n"
        while True:
            try:
                message = await asyncio.wait_for(queue.get(), KEEP_ALIVE_SECONDS)
            except asyncio.TimeoutError:
                yield b": still here\n\n"
                continue
            if message is None:
                return
            if run is not None and message["run"] != run:
                continue
            known = await parts.known.seek(message["run"])
            if known is None or not caller.may("read", known.project):
                continue
            yield b"event: %s\ndata: %s\n\n" % (message["type"].encode(), msgspec.json.encode(finite(message)))
