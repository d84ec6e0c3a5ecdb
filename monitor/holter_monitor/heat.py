"""Which ranks stand apart: a metric of all ranks over steps as a matrix of rows (nodes or ranks) and columns (steps), and its outliers.

Synchronous training makes most numbers equal over ranks, so a rank is judged against the other ranks at the same step, never by its level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

APART = 4.0
"""Robust deviations from the other ranks, in the median over columns, from which a row is named."""
FLOOR = 0.01
"""The least spread that counts, as a share of the column's median: without it, equal ranks would make a nanosecond an outlier."""
NAMED = 12
"""Outliers that are named; more are no outliers."""


@dataclass(frozen=True, slots=True)
class Heat:
    """`values[row, column]` is that row's most extreme value in the column: NaN where nothing was logged, infinite where a NaN was."""

    keys: NDArray[Any]
    """The row's node number or rank."""
    steps: NDArray[Any]
    """The first step of each column."""
    values: NDArray[np.float32]
    extreme_rank: NDArray[Any]
    """The rank behind each cell; -1 where there is none."""
    center: NDArray[np.float64]
    """The median over all ranks, by column."""
    scores: NDArray[np.float64]
    """By row: deviations from the other ranks, in the median over columns; signed."""

    @property
    def outliers(self) -> list[int]:
        """Rows that stand apart, the farthest first."""
        order = np.argsort(-np.abs(self.scores))
        return [int(row) for row in order[:NAMED] if abs(self.scores[row]) >= APART]


def heat(key: NDArray[Any], rank: NDArray[Any], step: NDArray[Any], value: NDArray[Any], columns: int) -> Heat:
    """From points (`key` is the row they belong to) to the matrix, with at most `columns` columns of equally many steps."""
    finite = np.isfinite(value)
    values = np.where(finite, value.astype(np.float64), np.inf)
    keys, row = np.unique(key, return_inverse=True)
    present, place = np.unique(step, return_inverse=True)
    per_column = max(1, -(-len(present) // columns))
    column = place // per_column
    width = int(column.max()) + 1 if len(column) else 0
    center, spread = _level(column, values, finite, width)
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = np.where(finite, (values - center[column]) / spread[column], np.inf)
    cell = row.astype(np.int64) * max(1, width) + column
    order = np.lexsort((np.abs(apart), cell))
    last = np.append(cell[order][1:] != cell[order][:-1], True) if len(order) else np.zeros(0, bool)
    chosen = order[last]
    shape = (len(keys), width)
    matrix, ranks, deviation = np.full(shape, np.nan, np.float32), np.full(shape, -1, np.int64), np.full(shape, np.nan)
    matrix.flat[cell[chosen]], ranks.flat[cell[chosen]] = values[chosen], rank[chosen]
    deviation.flat[cell[chosen]] = np.clip(apart[chosen], -1e6, 1e6)
    return Heat(keys, present[::per_column], matrix, ranks, center, _scores(deviation))


def _level(column: NDArray[Any], values: NDArray[Any], finite: NDArray[Any], width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Median and robust standard deviation (1.4826 × MAD, at least `FLOOR` of the median) of each column."""
    center, spread = np.full(width, np.nan), np.full(width, np.nan)
    order = np.argsort(column[finite], kind="stable")
    kept, places = values[finite][order], column[finite][order]
    for index, part in zip(*_groups(places, kept), strict=True):
        center[index] = np.median(part)
        spread[index] = max(1.4826 * float(np.median(np.abs(part - center[index]))), FLOOR * abs(center[index]), 1e-12)
    return center, spread


def _groups(places: NDArray[Any], values: NDArray[Any]) -> tuple[NDArray[Any], list[NDArray[Any]]]:
    found, start = np.unique(places, return_index=True)
    return found, np.split(values, start[1:]) if len(found) else []


def _scores(deviation: NDArray[np.float64]) -> NDArray[np.float64]:
    scores = np.zeros(len(deviation))
    for row, cells in enumerate(deviation):
        known = cells[~np.isnan(cells)]
        if known.size:
            scores[row] = np.median(known)
    return scores
