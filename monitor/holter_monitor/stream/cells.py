"""The rows of a frame as arrays, and how they get into a step's matrix of metrics and ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from holter.frame import Frame
from numpy.typing import NDArray

from holter_monitor.stream.steps import Mask, Values

Keys = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Block:
    """A frame's rows as arrays: `values` and `present` are (metrics, rows), `places` the metrics' rows in the matrices."""

    rank: Keys
    time_ns: NDArray[np.int64]
    places: Keys
    values: Values
    present: Mask


def block_of(frame: Frame, names: list[str]) -> tuple[Values, Mask]:
    values = np.empty((len(names), frame.rows))
    present = np.ones((len(names), frame.rows), np.bool_)
    for row, name in enumerate(names):
        column = frame.metrics[name]
        values[row] = column.values
        if column.present is not None:
            present[row] = column.present
    return values, present


def write(matrix: Values, present: Mask, block: Block, chosen: NDArray[np.intp]) -> None:
    """The rows `chosen`, in order, so that the newest value of a cell counts; what a row did not log stays as it was."""
    metric, row = np.nonzero(block.present[:, chosen])
    cells = (block.places[metric], block.rank[chosen[row]])
    matrix[cells] = block.values[metric, chosen[row]]
    present[cells] = True


def fit(matrix: Values, present: Mask, metrics: int, ranks: int) -> tuple[Values, Mask]:
    if matrix.shape == (metrics, ranks):
        return matrix, present
    wide, mask = np.full((metrics, ranks), np.nan), np.zeros((metrics, ranks), np.bool_)
    wide[: matrix.shape[0], : matrix.shape[1]] = matrix
    mask[: matrix.shape[0], : matrix.shape[1]] = present
    return wide, mask
