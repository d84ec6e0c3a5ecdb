"""`POST /api/v1/frames`, as plain ASGI: two thousand of these a second leave no room for a framework's conveniences."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
from holter.errors import FrameError
from holter.frame import CONTENT_TYPE, Frame, decode
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from holter_monitor.api import bodies, problems
from holter_monitor.api.callers import ANYBODY, Caller
from holter_monitor.api.parts import Parts
from holter_monitor.errors import Problem, Unavailable
from holter_monitor.store.ports import Outcome
from holter_monitor.store.stack_requests import heard_by

KIND = CONTENT_TYPE.encode()
INLINE_BYTES = 256 << 10


class Frames:
    """Reads, checks, has it made durable, acknowledges."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        meters = self._parts.meters
        try:
            acknowledgement = await self._take(scope, receive)
        except ClientDisconnect:
            return
        except (Problem, FrameError, Unavailable) as error:
            problem = problems.of(error)
            meters.frames.labels("refused" if problem.status in (429, 503, 507) else "rejected").inc()
            await problems.respond(problem)(scope, receive, send)
            return
        length = str(len(acknowledgement)).encode()
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json"), (b"content-length", length)]}
        )
        await send({"type": "http.response.body", "body": acknowledgement})

    async def _take(self, scope: Scope, receive: Receive) -> bytes:
        """The acknowledgement, once the frame is durable."""
        kind = bodies.header(scope, b"content-type") or b""
        if kind != KIND and kind.split(b";")[0].strip() != KIND:
            raise Problem(415, "Not a frame", field="Content-Type", value=kind.decode("latin-1"), remedy=f"send {CONTENT_TYPE}")
        body = await bodies.read(scope, receive, self._parts.settings.limits)
        started = time.perf_counter()
        frame = decode(body) if len(body) <= INLINE_BYTES else await asyncio.to_thread(decode, body)
        advice = await self._admit(frame, scope.get("holter.caller", ANYBODY))
        outcome = await self._parts.committer.submit(frame, body)
        self._count(frame, outcome, time.perf_counter() - started)
        if outcome is Outcome.CONFLICT:
            raise Problem(
                409,
                "Another frame has this number",
                field="seq",
                value=f"{frame.node}/{frame.boot}/{frame.seq}",
                remedy="two agents share one identity: start this one anew",
            )
        return msgspec.json.encode({"ack": frame.seq} | advice)

    async def _admit(self, frame: Frame, caller: Caller) -> dict[str, Any]:
        """The advice for the frame's run and a request for stacks, if the run is known and the caller may write it."""
        run = await self._parts.known.seek(frame.run)
        if run is None or not caller.may("write", run.project):
            raise Problem(409, "Unknown run", field="run", value=frame.run, remedy="POST /api/v1/runs first, then send frames of its id")
        advice = {"advice": run.advice} if run.advice else {}
        return advice | heard_by(run.stacks_asked, frame.node, self._parts.clock()) if run.stacks_asked else advice

    def _count(self, frame: Frame, outcome: Outcome, seconds: float) -> None:
        meters = self._parts.meters
        meters.ingest.observe(seconds)
        meters.frames.labels("rejected" if outcome is Outcome.CONFLICT else outcome.value).inc()
        if outcome is Outcome.STORED:
            meters.points.inc(frame.rows * len(frame.metrics))
