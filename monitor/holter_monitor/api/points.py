"""`POST /runs/{id}/points`: points as JSON, for curl and other languages. They become a frame and go the way of all frames."""

from __future__ import annotations

import hashlib
import itertools
import uuid
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from fastapi import APIRouter, Query, Request
from holter.frame import NO_STEP, NODE_RANK, Column, Frame, encode
from holter.layout import MAX_COLUMNS, MAX_NAME
from starlette.concurrency import run_in_threadpool

from holter_monitor.api.parts import Parts, TheCaller, TheParts
from holter_monitor.api.shapes import Shape
from holter_monitor.errors import Problem
from holter_monitor.store.ports import Outcome
from holter_monitor.store.runs import attempts_of

router = APIRouter(prefix="/api/v1", tags=["points"])
NODE = "rest"
NAMES = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
MAX_POINTS = 10_000
MAX_CELLS = 1_000_000
"""Points times metrics: a frame is dense, and a megabyte of scattered names would make a hundred of it."""
EXAMPLE = [{"step": 1, "rank": 0, "loss": 2.3, "grad_norm": "NaN"}, {"event": "checkpoint", "step": 1, "attrs": {"seconds": 4.5}}]
BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "array", "items": {"type": "object"}}, "example": EXAMPLE}},
    }
}
_BOOT = uuid.uuid4().hex
_SEQ = itertools.count()


class Stored(Shape):
    rows: int
    events: int
    repeated: bool


@router.post("/runs/{run}/points", response_model=Stored, openapi_extra=BODY)
async def post_points(
    run: str,
    request: Request,
    parts: TheParts,
    caller: TheCaller,
    attempt: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=200,
            description='without it: "1"; for events alone the newest attempt of the run, as an evaluation job needs',
        ),
    ] = None,
) -> Stored:
    """Points and events of a run. A value may be "NaN", "Infinity" or "-Infinity"; null or nothing is "not logged". With an
    `Idempotency-Key` header a repeat is recognised and not stored again."""
    known = await parts.known.seek(run)
    if known is None or not caller.may("write", known.project):
        raise Problem(404, "No such run", field="run", value=run, remedy="POST /api/v1/runs first, then send points to its id")
    points = parse(await request.body())
    if attempt is None:
        # A job beside the training (evaluations, an uploader) must not begin an attempt: detection would leave that of the training.
        attempt = "1" if any("event" not in point for point in points) else await run_in_threadpool(_newest_attempt, parts, run)
    frame = build(run, attempt, points, int(parts.clock() * 1e9))
    key = request.headers.get("idempotency-key")
    if key:
        frame.boot, frame.seq = hashlib.sha256(f"{run}\0{key}".encode()).hexdigest()[:32], 0
    outcome = await parts.committer.submit(frame, encode(frame))
    return Stored(rows=frame.rows, events=len(frame.events), repeated=outcome is not Outcome.STORED)


def _newest_attempt(parts: Parts, run: str) -> str:
    with parts.control.read() as connection:
        found = attempts_of(connection, run)
    return str(found[-1]["attempt"]) if found else "1"


def parse(body: bytes) -> list[dict[str, Any]]:
    """The points in the body. Strict JSON: a bare NaN is not JSON. Raises `Problem`."""
    try:
        points = msgspec.json.decode(body, type=list[dict[str, Any]])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(
            400, "Not a list of points", field="body", value=str(error), remedy='send [{"step": 1, "rank": 0, "loss": 2.3}]'
        ) from error
    if len(points) > MAX_POINTS:
        raise Problem(413, "Too many points", field="body", value=f"{len(points)} points", remedy=f"at most {MAX_POINTS} a request")
    return points


def build(run: str, attempt: str, points: Sequence[dict[str, Any]], now_ns: int) -> Frame:
    """The points as a frame. Raises `Problem` that names the point."""
    rows = [(index, point) for index, point in enumerate(points) if "event" not in point]
    frame = Frame(run=run, attempt=attempt, node=NODE, boot=_BOOT, seq=next(_SEQ), sent_ns=now_ns)
    frame.rank = np.array([_whole(point, index, "rank", 0, 2**31) for index, point in rows], np.int32)
    frame.step = np.array([_whole(point, index, "step", None, 2**62) for index, point in rows], np.int64)
    frame.time_ns = np.array([_whole(point, index, "time_ns", now_ns, 2**63) for index, point in rows], np.int64)
    names = dict.fromkeys(name for _, point in rows for name in point if name not in ("rank", "step", "time_ns"))
    if len(names) > MAX_COLUMNS - 3 or len(names) * len(rows) > MAX_CELLS:
        shape = f"{len(names)} metrics in {len(rows)} points"
        raise Problem(413, "Too many metrics", field="body", value=shape, remedy="send points of the same metrics together, others apart")
    frame.metrics = {_name(name): _column(name, rows) for name in names}
    frame.events = [_event(point, index, now_ns) for index, point in enumerate(points) if "event" in point]
    return frame


def _whole(point: dict[str, Any], index: int, key: str, default: int | None, limit: int) -> int:
    value = point.get(key, default)
    low = {"rank": NODE_RANK, "step": NO_STEP}.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value < limit:
        raise Problem(
            400, "The point does not fit", field=f"[{index}].{key}", value=value, remedy=f"a whole number from {low} to {limit - 1}"
        )
    return value


def _name(name: str) -> str:
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise Problem(400, "No name for a metric", field="name", value=name[:MAX_NAME], remedy=f"1 to {MAX_NAME} printable characters")
    return name


def _column(name: str, rows: Sequence[tuple[int, dict[str, Any]]]) -> Column:
    values = np.zeros(len(rows))
    present = np.zeros(len(rows), bool)
    for place, (index, point) in enumerate(rows):
        value = point.get(name)
        if value is None:
            continue
        if isinstance(value, str) and value in NAMES:
            value = NAMES[value]
        if not isinstance(value, int | float) or isinstance(value, bool) or (isinstance(value, int) and abs(value) >= 2**63):
            raise Problem(
                400, "Not a number", field=f"[{index}].{name}", value=value, remedy='a number, "NaN", "Infinity", "-Infinity" or null'
            )
        values[place], present[place] = value, True
    return Column(values, None if present.all() else present)


def _event(point: dict[str, Any], index: int, now_ns: int) -> dict[str, Any]:
    word, attrs = point["event"], point.get("attrs", {})
    if not isinstance(word, str) or not 0 < len(word) <= MAX_NAME or not word.isprintable():
        raise Problem(400, "No word for an event", field=f"[{index}].event", value=word, remedy=f"1 to {MAX_NAME} printable characters")
    if not isinstance(attrs, dict):
        raise Problem(400, "The event does not fit", field=f"[{index}].attrs", value=attrs, remedy="an object")
    numbers = {key: None if point.get(key) is None else _whole(point, index, key, None, 2**62) for key in ("rank", "step")}
    return {"event": word, **numbers, "time_ns": _whole(point, index, "time_ns", now_ns, 2**63), "attrs": attrs}
