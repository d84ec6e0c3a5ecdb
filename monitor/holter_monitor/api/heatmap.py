"""`GET /runs/{id}/heatmap`: a metric of all ranks over steps, a row a node or a rank, with the rows that stand apart named."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query, Response
from numpy.typing import NDArray
from pydantic import Field

from holter_monitor import heat
from holter_monitor.api.parts import Parts, TheCaller, TheParts, visible_run
from holter_monitor.api.series import answer
from holter_monitor.api.shapes import Shape
from holter_monitor.store.ports import Cells, Window

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
) -> Response:
    """By default the newest steps, as many as there are columns."""
    with parts.control.read() as connection:
        row = visible_run(connection, run, caller)
    newest = parts.samples.last_step(run, metric) or 0
    last = newest if to_step is None else min(to_step, newest)
    first = max(0, last - columns + 1) if from_step is None else from_step
    points, sampled = _points(parts, run, metric, first=first, last=last, world_size=row["world_size"])
    ranks, row_of = heat.numbered(points.rank)
    by_rank = by == "rank" or (by == "auto" and len(ranks) <= RANK_ROWS)
    picture = heat.heat(points.rank if by_rank else points.node, points.rank, points.step, points.value, columns)
    names = parts.samples.nodes(run)
    document = {
        "run": run,
        "metric": metric,
        "by": "rank" if by_rank else "node",
        "rows": _ranks(ranks, row_of, points.node, names) if by_rank else _nodes(picture.keys, names),
        "steps": picture.steps.tolist(),
        "sampled": sampled,
        "values": base64.b64encode(picture.values.astype("<f4", copy=False).tobytes()).decode(),
        "center": [value if np.isfinite(value) else None for value in picture.center.tolist()],
        "outliers": [_outlier(picture, index) for index in picture.outliers],
    }
    return answer(document)


def _points(parts: Parts, run: str, metric: str, *, first: int, last: int, world_size: int) -> tuple[Cells, bool]:
    if (last - first + 1) * max(1, world_size) <= CELLS:
        return parts.samples.cells(run, metric, Window(from_step=first, to_step=last)), False
    steps = np.unique(np.linspace(first, last, SAMPLED).astype(int))
    pieces = [parts.samples.cells(run, metric, Window(from_step=int(step), to_step=int(step))) for step in steps]
    return Cells(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in Cells.__slots__)), True


def _nodes(numbers: NDArray[Any], names: dict[int, str]) -> list[dict[str, Any]]:
    return [{"name": names.get(number, "?"), "node": names.get(number, "?"), "rank": None} for number in numbers.tolist()]


def _ranks(ranks: NDArray[Any], row_of: NDArray[Any], node: NDArray[Any], names: dict[int, str]) -> list[dict[str, Any]]:
    home = np.zeros(len(ranks), np.int64)
    home[row_of] = node
    pairs = zip(ranks.tolist(), home.tolist(), strict=True)
    return [{"name": f"rank {rank}", "node": names.get(number, "?"), "rank": rank} for rank, number in pairs]


def _outlier(picture: heat.Heat, row: int) -> dict[str, Any]:
    ranks = picture.extreme_rank[row]
    seen, counts = np.unique(ranks[ranks >= 0], return_counts=True)
    return {"row": row, "score": round(float(picture.scores[row]), 2), "rank": int(seen[np.argmax(counts)])}
