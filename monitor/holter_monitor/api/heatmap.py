"""`GET /runs/{id}/heatmap`: a metric of all ranks over steps, a row a node or a rank, with the rows that stand apart named."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query
from numpy.typing import NDArray
from pydantic import Field

from holter_monitor import heat
from holter_monitor.api.parts import Parts, TheCaller, TheParts, visible_run
from holter_monitor.api.shapes import Shape
from holter_monitor.store.ports import Rows, Window

router = APIRouter(prefix="/api/v1", tags=["series"])
CELLS = 3_000_000
"""Points that one answer may read: 16,384 ranks × 183 steps. A wider window is sampled, a step a column."""
SAMPLED = 40
"""Columns of a sampled window, each a query of its own."""
RANK_ROWS = 512
"""Up to so many ranks, each has its row; above, a row is a node and its cell the rank that stands farthest apart."""
Step = Annotated[int | None, Query(ge=0, le=2**62)]


class RowShape(Shape):
    name: str
    node: str
    rank: int | None = Field(description="of a rank's row; null for a node's")


class OutlierShape(Shape):
    row: int
    score: float = Field(description="robust deviations from the other ranks, median over the columns")
    rank: int = Field(description="the rank that made it so most often")


class HeatmapShape(Shape):
    run: str
    metric: str
    by: str
    rows: list[RowShape]
    steps: list[int] = Field(description="first step of each column")
    sampled: bool = Field(description="true: columns are single steps of a wider window")
    values: str = Field(
        description="base64 of float32, little endian, row after row; NaN: nothing logged, Infinity: a non-finite value was logged"
    )
    center: list[float | None] = Field(description="median over all ranks, by column")
    outliers: list[OutlierShape]


@router.get("/runs/{run}/heatmap", response_model=HeatmapShape)
def get_heatmap(
    run: str,
    parts: TheParts,
    caller: TheCaller,
    *,
    metric: Annotated[str, Query(max_length=200, examples=["compute_seconds"])],
    from_step: Step = None,
    to_step: Step = None,
    columns: Annotated[int, Query(ge=1, le=400)] = 120,
    by: Literal["auto", "node", "rank"] = "auto",
) -> HeatmapShape:
    """By default the newest steps, as many as there are columns."""
    with parts.control.read() as connection:
        row = visible_run(connection, run, caller)
    newest = parts.samples.last_step(run, metric) or 0
    last = newest if to_step is None else min(to_step, newest)
    first = max(0, last - columns + 1) if from_step is None else from_step
    points, sampled = _points(parts, run, metric, first=first, last=last, world_size=row["world_size"])
    kept = points.rank >= 0
    rank, node, step, value = points.rank[kept], points.node[kept], points.step[kept], points.value[kept].astype(np.float64)
    by_rank = by == "rank" or (by == "auto" and len(np.unique(rank)) <= RANK_ROWS)
    picture = heat.heat(rank if by_rank else node, rank, step, value, columns)
    return HeatmapShape(
        run=run,
        metric=metric,
        by="rank" if by_rank else "node",
        rows=_rows(picture.keys, rank, node, parts.samples.nodes(run), by_rank=by_rank),
        steps=[int(step) for step in picture.steps],
        sampled=sampled,
        values=base64.b64encode(picture.values.astype("<f4").tobytes()).decode(),
        center=[float(value) if np.isfinite(value) else None for value in picture.center],
        outliers=[_outlier(picture, index) for index in picture.outliers],
    )


def _points(parts: Parts, run: str, metric: str, *, first: int, last: int, world_size: int) -> tuple[Rows, bool]:
    if (last - first + 1) * max(1, world_size) <= CELLS:
        return parts.samples.ranks(run, metric, Window(from_step=first, to_step=last)), False
    steps = np.unique(np.linspace(first, last, SAMPLED).astype(int))
    pieces = [parts.samples.ranks(run, metric, Window(from_step=int(step), to_step=int(step))) for step in steps]
    names = ("attempt", "node", "rank", "step", "time_ns", "value")
    return Rows(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in names)), True


def _rows(keys: NDArray[Any], rank: NDArray[Any], node: NDArray[Any], names: dict[int, str], *, by_rank: bool) -> list[RowShape]:
    if not by_rank:
        return [RowShape(name=names.get(int(key), "?"), node=names.get(int(key), "?"), rank=None) for key in keys]
    home = dict(zip(rank.tolist(), node.tolist(), strict=True))
    return [RowShape(name=f"rank {key}", node=names.get(home[int(key)], "?"), rank=int(key)) for key in keys]


def _outlier(picture: heat.Heat, row: int) -> OutlierShape:
    ranks = picture.extreme_rank[row]
    seen, counts = np.unique(ranks[ranks >= 0], return_counts=True)
    return OutlierShape(row=row, score=round(float(picture.scores[row]), 2), rank=int(seen[np.argmax(counts)]))
