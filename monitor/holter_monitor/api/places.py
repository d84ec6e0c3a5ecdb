"""`GET /runs/{id}/ranks/{rank}`: one rank with its GPU and its host, every metric that it and its node logged lately."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Query
from holter.frame import NODE_RANK
from pydantic import Field

from holter_monitor.api.parts import Parts, TheCaller, TheParts, visible_run
from holter_monitor.api.shapes import Shape
from holter_monitor.errors import Problem
from holter_monitor.store import runs
from holter_monitor.store.ports import Rows, Window

router = APIRouter(prefix="/api/v1", tags=["series"])
MAX_METRICS = 120


class LineShape(Shape):
    step: list[int]
    value: list[float | str]


class PlaceShape(Shape):
    run: str
    rank: int
    node: str | None
    place: dict[str, Any] = Field(description='the newest attempt\'s word on it: {"node", "gpu", "dp", "tp", …}')
    from_step: int
    metrics: dict[str, LineShape] = Field(description="the rank's own")
    host: dict[str, LineShape] = Field(description="its node's")


@router.get("/runs/{run}/ranks/{rank}", response_model=PlaceShape)
def get_place(
    run: str,
    rank: Annotated[int, Path(ge=0, le=2**31 - 1)],
    parts: TheParts,
    caller: TheCaller,
    *,
    last: Annotated[int, Query(ge=1, le=20_000, description="how many of the newest steps")] = 1_000,
    max_points: Annotated[int, Query(ge=10, le=2_000)] = 400,
) -> PlaceShape:
    with parts.control.read() as connection:
        row = visible_run(connection, run, caller)
        attempts = runs.attempts_of(connection, run)
    place: dict[str, Any] = next((attempt["mesh"][str(rank)] for attempt in reversed(attempts) if str(rank) in attempt["mesh"]), {})
    window = Window(from_step=max(0, (row["last_step"] or 0) - last + 1))
    own, host = _lines(parts, run, rank, place.get("node"), window=window, points=max_points)
    if not own and not place:
        raise Problem(404, "No such rank", field="rank", value=rank, remedy=f"the run has ranks 0 to {row['world_size'] - 1}")
    return PlaceShape(run=run, rank=rank, node=place.get("node"), place=place, from_step=window.from_step or 0, metrics=own, host=host)


def _lines(
    parts: Parts, run: str, rank: int, node: str | None, *, window: Window, points: int
) -> tuple[dict[str, LineShape], dict[str, LineShape]]:
    numbers = {name: number for number, name in parts.samples.nodes(run).items()}
    own, host = {}, {}
    for metric in parts.samples.metrics(run)[:MAX_METRICS]:
        found = parts.samples.ranks(run, metric, window, [rank, NODE_RANK])
        if (line := _line(found, found.rank == rank, points)) is not None:
            own[metric] = line
        if node in numbers and (line := _line(found, (found.rank == NODE_RANK) & (found.node == numbers[node]), points)) is not None:
            host[metric] = line
    return own, host


def _line(rows: Rows, kept: Any, points: int) -> LineShape | None:
    """Thinned by picking; extremes are the business of the run's curves."""
    step, value = rows.step[kept], rows.value[kept]
    if not len(step):
        return None
    order = np.argsort(step, kind="stable")[:: max(1, -(-len(step) // points))]
    return LineShape(step=step[order].tolist(), value=[_spoken(float(one)) for one in value[order]])


def _spoken(value: float) -> float | str:
    if np.isnan(value):
        return "NaN"
    return value if np.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")
