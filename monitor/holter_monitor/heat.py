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
    """`values[row, column]` is the value of the row's farthest rank in the column (of several steps, set against the column's own level): NaN where
    nothing was logged, infinite where a NaN was."""

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
    """From points (`key` is the row they belong to: its node, or the rank itself) to the matrix, with at most `columns` columns of equally many
    steps. Of a rank's values at a step the last one counts. Two million points take a tenth of a second."""
    ranks, row = numbered(rank)
    steps, place = numbered(step)
    home = np.zeros(len(ranks), np.int64)
    home[row] = key
    order = np.argsort(home, kind="stable")
    keys, first = np.unique(home[order], return_index=True)
    if not len(ranks):
        return Heat(keys, steps, np.zeros((0, 0), np.float32), np.zeros((0, 0), np.int64), np.zeros(0), np.zeros(0))
    dense = np.full((len(steps), len(ranks)), np.nan, np.float32)
    dense[place, np.argsort(order)[row]] = np.where(np.isfinite(value), value, np.inf)
    center, spread = _level(dense)
    with np.errstate(invalid="ignore"):
        apart = np.where(
            np.isinf(dense), np.float32(np.inf), (dense - center[:, None].astype(np.float32)) / spread[:, None].astype(np.float32)
        )
    cells, who = _farthest(apart, ranks[order], first)
    starts = np.arange(0, len(steps), max(1, -(-len(steps) // columns)))
    cells, who = _columns(cells, who, starts)
    middle, scale = _by_column(center, starts), _by_column(spread, starts)
    values = (middle[:, None] + cells * scale[:, None]).astype(np.float32)
    scores = np.nan_to_num(_medians(np.clip(cells.T, -1e6, 1e6)))
    return Heat(keys, steps[starts], np.ascontiguousarray(values.T), who.T, middle, scores)


def numbered(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The distinct values, ascending, and where each value stands among them; without a sort where they lie close together."""
    if not len(values) or int(values.max()) - int(values.min()) > 4 * len(values):
        return np.unique(values, return_inverse=True)
    shifted = values - values.min()
    is_there = np.zeros(int(shifted.max()) + 1, bool)
    is_there[shifted] = True
    return np.flatnonzero(is_there) + values.min(), (np.cumsum(is_there) - 1)[shifted]


def _level(dense: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Median and robust standard deviation (1.4826 × MAD, at least `FLOOR` of the median) over the ranks, by step."""
    finite = np.where(np.isinf(dense), np.float32(np.nan), dense)
    center = _medians(finite)
    mad = _medians(np.abs(finite - center[:, None].astype(np.float32)))
    return center, np.maximum(np.maximum(1.4826 * mad, FLOOR * np.abs(center)), 1e-12)


def _medians(values: NDArray[Any]) -> NDArray[np.float64]:
    """Of each row, over what is no NaN; NaN for a row without any."""
    ordered = np.sort(values, axis=1)  # NaN last
    known = values.shape[1] - np.isnan(values).sum(axis=1)
    rows = np.arange(len(values))
    low, high = ordered[rows, np.maximum(0, (known - 1) // 2)], ordered[rows, np.minimum(values.shape[1] - 1, known // 2)]
    middle: NDArray[np.float64] = (low.astype(np.float64) + high) / 2
    return middle


def _by_column(values: NDArray[np.float64], starts: NDArray[Any]) -> NDArray[np.float64]:
    return np.array([_medians(part[None])[0] for part in np.split(values, starts[1:])])


def _farthest(apart: NDArray[Any], ranks: NDArray[Any], first: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Of each row's ranks (from `first` on, up to the next row's) the one that stands farthest apart, by step; and which rank it is."""
    height = np.abs(apart)
    height[np.isnan(height)] = -1.0
    sizes = np.diff(np.append(first, len(ranks)))
    is_best = height == np.repeat(np.maximum.reduceat(height, first, axis=1), sizes, axis=1)
    at = np.minimum.reduceat(np.where(is_best, np.arange(len(ranks), dtype=np.int32), np.int32(len(ranks))), first, axis=1)
    cells = np.take_along_axis(apart, at, axis=1)
    return cells, np.where(np.isnan(cells), -1, ranks[at])


def _columns(cells: NDArray[Any], who: NDArray[Any], starts: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Of the steps of a column the farthest one."""
    if len(starts) == len(cells):
        return cells, who
    height = np.nan_to_num(np.abs(cells), nan=-1.0, posinf=np.inf)
    ends = [*starts[1:], len(cells)]
    best = np.array([start + np.argmax(height[start:end], axis=0) for start, end in zip(starts, ends, strict=True)])
    return np.take_along_axis(cells, best, axis=0), np.take_along_axis(who, best, axis=0)
