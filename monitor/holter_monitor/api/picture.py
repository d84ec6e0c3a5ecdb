"""`GET /incidents/{id}/plot.png`: the evidence as a picture."""

from __future__ import annotations

from fastapi import APIRouter, Response

from holter_monitor.api.parts import TheCaller, TheParts
from holter_monitor.errors import Problem
from holter_monitor.plots import evidence_png
from holter_monitor.store import evidence, incidents

router = APIRouter(prefix="/api/v1", tags=["incidents"])


@router.get("/incidents/{incident}/plot.png", response_class=Response, responses={200: {"content": {"image/png": {}}}})
def get_plot(incident: str, parts: TheParts, caller: TheCaller) -> Response:
    """1088 pixels wide, readable on a phone. Drawn in a worker thread, never on the event loop."""
    with parts.control.read() as connection:
        row = incidents.one(connection, incident)
        if row is None or not caller.may("read", row["project"]):
            raise Problem(404, "No such incident", field="incident", value=incident, remedy="GET /api/v1/incidents lists them")
        series = evidence.series(connection, row)
    return Response(evidence_png(series, dict(row)), media_type="image/png", headers={"Cache-Control": "no-store"})
