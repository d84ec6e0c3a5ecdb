"""Of a block of steps the lowest and the highest point of each aggregate: what a thinned series is picked from without a look at the steps between."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

AGGREGATES = ("mean", "min", "max", "median", "sum", "count")
PLACES = len(AGGREGATES) * 2 * 3
"""Numbers of a block behind that of its steps: for each aggregate the lowest and the highest point, as step, time and value."""


def of_summaries(columns: Any) -> dict[str, sa.ColumnElement[Any]]:
    """Each aggregate in terms of the columns of `step_summaries`. What is not finite takes no part, as in the points themselves."""
    finite = columns["count"] - columns.non_finite
    plain = {name: columns[name] for name in ("mean", "min", "max", "median")}
    return plain | {"sum": columns.mean * finite, "count": finite}


def of_steps(rows: Sequence[Sequence[Any]]) -> bytes:
    """Of steps in their order, each as step, time and the aggregates."""
    steps = np.array(rows, np.float64)  # None becomes NaN
    points = np.empty((len(AGGREGATES), len(steps), 3))
    points[..., :2] = steps[:, :2]
    points[..., 2] = steps[:, 2:].T
    return _packed(len(steps), points)


def of_blocks(blocks: Iterable[bytes]) -> bytes:
    """Of the blocks of which a wider one is made, in their order."""
    counts, points = _unpacked(blocks)
    return _packed(int(counts.sum()), points.swapaxes(0, 1).reshape(len(AGGREGATES), -1, 3))


def points_of(blocks: Iterable[bytes], aggregate: str) -> tuple[int, NDArray[Any]]:
    """How many steps the blocks hold, and the points of one aggregate, a row each."""
    counts, points = _unpacked(blocks)
    return int(counts.sum()), points[:, AGGREGATES.index(aggregate)].reshape(-1, 3)


def _packed(count: int, points: NDArray[Any]) -> bytes:
    """A value that is not finite is both the lowest and the highest: it is what one looks for."""
    value, every = points[..., 2], np.arange(len(points))
    odd = ~np.isfinite(value)
    low, high = np.where(odd, -np.inf, value).argmin(axis=1), np.where(odd, np.inf, value).argmax(axis=1)
    chosen = np.stack([points[every, low], points[every, high]], axis=1)
    return np.append(np.float64(count), chosen).astype("<f8").tobytes()


def _unpacked(blocks: Iterable[bytes]) -> tuple[NDArray[Any], NDArray[Any]]:
    table = np.frombuffer(b"".join(blocks), "<f8").reshape(-1, 1 + PLACES)
    return table[:, 0], table[:, 1:].reshape(-1, len(AGGREGATES), 2, 3)
