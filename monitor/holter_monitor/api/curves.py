"""`GET /runs/{id}/curves`: everything that the page of a run draws, in one answer that stays small however long the run is."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from holter_monitor.api.parts import TheCaller, TheParts, visible_run
from holter_monitor.api.shapes import Shape
from holter_monitor.store import curves
from holter_monitor.store.curves import Reader
from holter_monitor.store.rollups import WIDTHS

router = APIRouter(prefix="/api/v1", tags=["series"])
MAX_METRICS = 20
Step = Annotated[int | None, Query(ge=0, le=2**62)]


class CurveShape(Shape):
    """Columns of equal length, one entry a bucket of steps. `mean`, `min` and `max` leave non-finite values out; `non_finite` counts them."""

    step: list[int]
    time: list[float] = Field(description="unix seconds")
    mean: list[float | None]
    min: list[float | None]
    max: list[float | None]
    non_finite: list[int]


class TotalShape(Shape):
    step: list[int]
    value: list[float]


class LostShape(Shape):
    step: list[int]
    seconds: list[float] = Field(description="so far, from the first step of the answer")
    share: float | None = Field(description="of the time spent in these steps")
    base: float | None = Field(description="the median step, seconds")


class CurvesShape(Shape):
    run: str
    from_step: int
    to_step: int
    width: int = Field(description="steps in a bucket")
    curves: dict[str, CurveShape]
    total: TotalShape = Field(description="tokens of all ranks so far")
    times: TotalShape
    lost: LostShape


@router.get("/runs/{run}/curves", response_model=CurvesShape)
def get_curves(
    run: str,
    parts: TheParts,
    caller: TheCaller,
    *,
    metrics: Annotated[str, Query(max_length=2_000, examples=["loss,grad_norm"])],
    from_step: Step = None,
    to_step: Step = None,
    max_points: Annotated[int, Query(ge=10, le=5_000)] = 1_000,
) -> CurvesShape:
    """Curves over all ranks along the run (a repeated step counts once, with its newest attempt), the tokens seen, and the time lost to slow steps."""
    wanted = list(dict.fromkeys(name for name in metrics.split(",") if name))[:MAX_METRICS]
    with parts.control.read() as connection:
        visible_run(connection, run, caller)
        along = curves.stretches(connection, run, from_step, to_step)
        first = along[0].first if along else from_step or 0
        last = along[-1].last if along else first
        reader = Reader(connection, run, along, curves.width_of(along, max_points))
        found = {name: reader.curve(name) for name in wanted}
        total = _tokens(reader, from_step) if "tokens" in wanted else ([], [])
        lost = reader.lost() if "step_time_seconds" in wanted else _NOTHING_LOST
    found = {name: curve for name, curve in found.items() if curve["step"]}
    longest: dict[str, Any] = max(found.values(), key=lambda curve: len(curve["step"]), default={"step": [], "time": []})
    return CurvesShape(
        run=run,
        from_step=first,
        to_step=last,
        width=reader.width,
        curves={name: CurveShape(**curve) for name, curve in found.items()},
        total=TotalShape(step=total[0], value=total[1]),
        times=TotalShape(step=longest["step"], value=longest["time"]),
        lost=LostShape(**lost),
    )


_NOTHING_LOST: dict[str, Any] = {"step": [], "seconds": [], "share": None, "base": None}


def _tokens(reader: Reader, from_step: int | None) -> tuple[list[int], list[float]]:
    """Tokens count from the run's first step, whatever the window."""
    before = 0.0
    if from_step and reader.along:
        earlier = curves.stretches(reader.connection, reader.run, None, reader.along[0].first - 1)
        _, values = dataclasses.replace(reader, along=earlier, width=WIDTHS[-1]).total("tokens")
        before = values[-1] if values else 0.0
    steps, values = reader.total("tokens")
    return steps, [before + value for value in values]
