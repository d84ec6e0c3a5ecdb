"""Which ranks stand apart: a metric of all ranks over steps as a matrix of rows (nodes or ranks) and columns (steps), and its outliers.

Synchronous training makes most numbers equal over ranks, so a rank is judged against the other ranks at the same step, never by its level.
"""

from __future__ import annotations

import warnings
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
    steps. A rank's value at a step counts once; two million points take half a second."""
    ranks, row = np.unique(rank, return_inverse=True)
    steps, place = np.unique(step, return_inverse=True)
    dense = np.full((len(ranks), len(steps)), np.nan, np.float32)
    dense[row, place] = np.where(np.isfinite(value), value, np.inf)
    home = np.zeros(len(ranks), np.int64)
    home[row] = key
    order = np.argsort(home, kind="stable")
    keys, first = np.unique(home[order], return_index=True)
    width = max(1, -(-len(steps) // columns))
    starts = np.arange(0, len(steps), width)
    if not len(ranks):
        return Heat(keys, steps, dense, np.zeros((0, 0), np.int64), np.zeros(0), np.zeros(0))
    dense = dense[order]
    center, spread = _level(dense)
    with np.errstate(invalid="ignore"):
        apart = np.where(np.isinf(dense), np.inf, (dense - center) / spread).astype(np.float32)
    cells, who = _farthest(apart, ranks[order], first)
    cells, who = _columns(cells, who, starts)
    middle = np.array([_median(center[start : start + width]) for start in starts])
    scale = np.array([_median(spread[start : start + width]) for start in starts])
    return Heat(keys, steps[starts], (middle + cells * scale).astype(np.float32), who, middle, _scores(cells))


def _level(dense: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Median and robust standard deviation (1.4826 × MAD, at least `FLOOR` of the median) over the ranks, by step."""
    finite = np.where(np.isinf(dense), np.nan, dense)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a step without a finite value has no level
        center = np.nanmedian(finite, axis=0).astype(np.float64)
        mad = np.nanmedian(np.abs(finite - center), axis=0).astype(np.float64)
    return center, np.maximum(np.maximum(1.4826 * mad, FLOOR * np.abs(center)), 1e-12)


def _median(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if known.size else float("nan")


def _farthest(apart: NDArray[Any], ranks: NDArray[Any], first: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Of each row's ranks (from `first` on, up to the next row's) the one that stands farthest apart, by step; and which rank it is."""
    cells = np.empty((len(first), apart.shape[1]), np.float32)
    who = np.empty(cells.shape, np.int64)
    everywhere = np.arange(apart.shape[1])
    for row, (start, end) in enumerate(zip(first, [*first[1:], len(ranks)], strict=True)):
        part = apart[start:end]
        best = np.argmax(np.nan_to_num(np.abs(part), nan=-1.0, posinf=np.inf), axis=0)
        cells[row], who[row] = part[best, everywhere], ranks[start:end][best]
    who[np.isnan(cells)] = -1
    return cells, who


def _columns(cells: NDArray[Any], who: NDArray[Any], starts: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Of the steps of a column the farthest one."""
    if len(starts) == cells.shape[1]:
        return cells, who
    ends = [*starts[1:], cells.shape[1]]
    best = [
        start + np.argmax(np.nan_to_num(np.abs(cells[:, start:end]), nan=-1.0, posinf=np.inf), axis=1)
        for start, end in zip(starts, ends, strict=True)
    ]
    rows = np.arange(len(cells))
    return np.stack([cells[rows, at] for at in best], axis=1), np.stack([who[rows, at] for at in best], axis=1)


def _scores(cells: NDArray[Any]) -> NDArray[np.float64]:
    return np.array([_median(np.clip(row, -1e6, 1e6)) if (~np.isnan(row)).any() else 0.0 for row in cells.astype(np.float64)])
