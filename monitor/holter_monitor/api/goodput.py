"""`GET /runs/{id}/goodput`: where the wall time went."""

from __future__ import annotations

import dataclasses

from fastapi import APIRouter
from pydantic import Field

from holter_monitor.api.parts import TheCaller, TheParts, visible_run
from holter_monitor.api.shapes import Shape
from holter_monitor.store import goodput

router = APIRouter(prefix="/api/v1", tags=["runs"])


class GoodputShape(Shape):
    run: str
    goodput: float | None = Field(description="productive over wall; null before the first timed step")
    wall_seconds: float | None
    productive_seconds: float | None = Field(description="in steps that count, each at most as long as the median step")
    slow_seconds: float | None = Field(description="what steps took beyond the median: stalls, checkpoints, evaluations")
    starting_seconds: float | None = Field(description="before an attempt's first step, and its first steps' excess")
    repeated_seconds: float | None = Field(description="in steps that a later attempt did again")
    down_seconds: float | None = Field(description="between attempts")
    other_seconds: float | None = Field(description="in an attempt but in no recorded step")


@router.get("/runs/{run}/goodput", response_model=GoodputShape)
def get_goodput(run: str, parts: TheParts, caller: TheCaller) -> GoodputShape:
    with parts.control.read() as connection:
        visible_run(connection, run, caller)
        found = goodput.of(connection, run)
    if found is None:
        return GoodputShape(run=run, goodput=None, **{field.name: None for field in dataclasses.fields(goodput.Goodput)})
    return GoodputShape(run=run, goodput=found.goodput, **dataclasses.asdict(found))
