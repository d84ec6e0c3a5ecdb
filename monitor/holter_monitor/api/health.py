"""`/healthz` (the process answers), `/readyz` (it can do its work), `/metrics`."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from holter_monitor import __version__
from holter_monitor.api.parts import Parts, TheParts
from holter_monitor.consumers.pipeline import SampleWriter
from holter_monitor.errors import MonitorError, Unavailable

router = APIRouter(tags=["health"])
LAG_SECONDS = 60.0


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(parts: TheParts) -> Response:
    """200 if every part can work, else 503; either way each part's state in a sentence, also of a control store that does not answer."""
    try:
        states = await parts.aside.ask(lambda: check(parts))
    except Unavailable as error:
        states = {"control store": str(error)}
    is_ready = all(state == "ok" for state in states.values())
    return Response(
        msgspec.json.encode({"ready": is_ready, "parts": states, "version": __version__}),
        200 if is_ready else 503,
        media_type="application/json",
    )


def check(parts: Parts) -> dict[str, str]:
    """Each part and its state; "ok", or what is wrong."""
    states = {
        "control store": parts.control.problem() or "ok",
        "ingest": (parts.log.problem() or "ok") if parts.committer.is_alive else "its thread has ended",
        "disk": _disk(parts),
    }
    states["alerting"] = parts.dispatch.problem or "ok"
    now = parts.clock()
    for consumer in parts.consumers:
        lag = now - consumer.oldest_waiting if consumer.oldest_waiting is not None else 0.0
        store = parts.samples.problem() if consumer.name == SampleWriter.name else None
        state = consumer.trouble or store or (f"{lag:.0f} s behind the log" if lag > LAG_SECONDS else "ok")
        states[consumer.name] = state if consumer.is_alive else "its thread has ended"
    return states


def _disk(parts: Parts) -> str:
    try:
        parts.room.check()
    except MonitorError as error:
        return str(error)
    return "ok"


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(parts: TheParts) -> Response:
    """For Prometheus."""
    return Response(generate_latest(parts.meters.registry), media_type=CONTENT_TYPE_LATEST)
