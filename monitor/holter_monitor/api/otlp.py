"""`POST /api/v1/otlp/v1/metrics`: OTLP/HTTP metrics, protobuf or JSON. Point an exporter at `…/api/v1/otlp`."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from holter.frame import Column, Frame, encode
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest, ExportMetricsServiceResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from holter_monitor import otlp
from holter_monitor.api.callers import Caller
from holter_monitor.api.parts import Parts, TheCaller, TheParts
from holter_monitor.errors import Problem
from holter_monitor.store import runs

router = APIRouter(prefix="/api/v1/otlp", tags=["points"])
PROTOBUF, JSON = "application/x-protobuf", "application/json"
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {PROTOBUF: {"schema": {"type": "string", "format": "binary"}}, JSON: {"schema": {"type": "object"}}},
    }
}
ATTEMPT = "otlp"


class Steps:
    """Numbers steps that nobody numbered: each new time of a run is its next step, from where the run had come to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at: dict[str, tuple[int, int]] = {}

    def next(self, run: str, time_ns: int, last_step: int | None) -> int:
        with self._lock:
            seen, step = self._at.get(run, (-1, -1 if last_step is None else last_step))
            if time_ns > seen:
                seen, step = time_ns, step + 1
                self._at[run] = (seen, step)
            return step


STEPS = Steps()


@router.post("/v1/metrics", response_class=Response, openapi_extra=BODY, responses={200: {"content": {PROTOBUF: {}, JSON: {}}}})
async def post_metrics(request: Request, parts: TheParts, caller: TheCaller) -> Response:
    """An export becomes points of a run, which is made if there is none. 200 once they are durable; a repeated export is not stored again."""
    kind = request.headers.get("content-type", "").split(";")[0].strip()
    body = await request.body()
    export = otlp.read(await run_in_threadpool(_parse, kind, body))
    for place, told in enumerate(export.told):
        run, last_step = await run_in_threadpool(_find, parts, caller, told)
        frame = _frame(run, told, last_step, int(parts.clock() * 1e9))
        frame.boot, frame.seq = hashlib.sha256(body).hexdigest()[:32], place
        await parts.committer.submit(frame, encode(frame))
    answer = ExportMetricsServiceResponse()
    if export.rejected:
        answer.partial_success.rejected_data_points = export.rejected
        answer.partial_success.error_message = (
            "gauges, sums and histograms of training are taken; summaries and exponential histograms are not"
        )
    content = answer.SerializeToString() if kind == PROTOBUF else json_format.MessageToJson(answer).encode()
    return Response(content, media_type=kind)


def _parse(kind: str, body: bytes) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    try:
        if kind == PROTOBUF:
            request.ParseFromString(body)
        elif kind == JSON:
            json_format.Parse(body, request, ignore_unknown_fields=True, max_recursion_depth=32)
        else:
            raise Problem(415, "Not OTLP", field="Content-Type", value=kind, remedy=f"send {PROTOBUF} or {JSON}")
    except (DecodeError, json_format.ParseError, ValueError, RecursionError) as error:
        remedy = "send an ExportMetricsServiceRequest"
        raise Problem(400, "Not an export of metrics", field="body", value=str(error), remedy=remedy) from error
    return request


def _find(parts: Parts, caller: Caller, told: otlp.Told) -> tuple[str, int | None]:
    """The run's id and how far it had come."""
    if not told.project.isprintable() or not told.run.isprintable() or not told.node.isprintable():
        raise Problem(400, "No name for a run", field="resource.attributes", value=f"{told.project}/{told.run}", remedy="printable names")
    if not caller.may("write", told.project):
        raise Problem(403, "Not your project", field="service.namespace", value=told.project, remedy="use a token that writes this project")
    with parts.control.write() as connection:
        row, _ = runs.find_or_create(connection, {"project": told.project, "name": told.run}, parts.clock())
    return row["id"], row["last_step"]


def _frame(run: str, told: otlp.Told, last_step: int | None, now_ns: int) -> Frame:
    """Rows in the order of time; a metric that a row does not have is absent."""
    rows = sorted(told.points.items(), key=lambda row: row[0][2])
    names = list(dict.fromkeys(name for _, values in rows for name in values))
    if len(names) * len(rows) > 1_000_000 or len(names) > 4_000:
        raise Problem(
            413, "Too many metrics", field="body", value=f"{len(names)} metrics in {len(rows)} points", remedy="export more often"
        )
    steps = [STEPS.next(run, time_ns, last_step) if step is None else step for (_, step, time_ns), _ in rows]
    frame = Frame(run=run, attempt=ATTEMPT, node=told.node, boot="", seq=0, sent_ns=now_ns)
    frame.rank = np.array([rank for (rank, _, _), _ in rows], np.int32)
    frame.step = np.array(steps, np.int64)
    frame.time_ns = np.array([min(time_ns, 2**63 - 1) or now_ns for (_, _, time_ns), _ in rows], np.int64)
    frame.metrics = {name: _column(name, [values for _, values in rows]) for name in names}
    return frame


def _column(name: str, rows: Sequence[Mapping[str, float]]) -> Column:
    present = np.array([name in values for values in rows])
    return Column(np.array([values.get(name, 0.0) for values in rows]), None if present.all() else present)
