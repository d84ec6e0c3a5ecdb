"""Step summaries, for reading: a metric over all ranks, however many ranks there were, in no more points than are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from holter_monitor.store import extremes
from holter_monitor.store.ports import Window
from holter_monitor.store.rollups import BLOCKS, ROW, WIDTHS, Source, rolled_end
from holter_monitor.store.tables import attempts

VALUES = extremes.of_summaries(ROW)


@dataclass(frozen=True, slots=True)
class Line:
    """Points by attempt and step: every step, or of each block of steps those at which the value was lowest and highest."""

    total: int
    """How many steps there are."""
    attempt: NDArray[Any]
    """Numbers."""
    step: NDArray[Any]
    time_ns: NDArray[Any]
    value: NDArray[Any]


def read(connection: sa.Connection, run: str, metric: str, window: Window, how: str, *, max_points: int) -> tuple[Line, dict[int, str]]:
    """`how` (one of `extremes.AGGREGATES`) along the run, and the attempts' names by their number. Of a long run what holds the extremes of any
    `max_points`."""
    query = sa.select(attempts.c.number, attempts.c.attempt).where(attempts.c.run == run).order_by(attempts.c.number)
    named = {int(number): str(attempt) for number, attempt in connection.execute(query)}
    wanted = {number: Source(run, metric, attempt) for number, attempt in named.items() if window.attempt in (None, attempt)}
    spans = {number: (source, *_span(connection, source, window)) for number, source in wanted.items()}
    width = _width(sum(max(0, last - first + 1) for _, first, last in spans.values()), max_points)
    total, lines = 0, [np.empty((0, 4))]
    for number, (source, first, last) in spans.items():
        count, points = _points(connection, source, how, first, last, width=width)
        total += count
        lines.append(np.insert(points, 0, number, axis=1))
    number, step, at, value = np.concatenate(lines).T
    return Line(total, number.astype(np.int32), step.astype(np.int64), (at * 1e9).astype(np.int64), value), named


def _width(steps: int, max_points: int) -> int | None:
    """The widest blocks of which there are enough for two points each; None: there are so few steps that each is read."""
    return max((width for width in WIDTHS if 2 * steps >= width * max_points), default=None)


def _span(connection: sa.Connection, source: Source, window: Window) -> tuple[int, int]:
    first, last = (
        connection.scalar(sa.select(ROW.step).where(*source.of(ROW)).order_by(order).limit(1)) for order in (ROW.step, ROW.step.desc())
    )
    if first is None or last is None:
        return 0, -1
    low = first if window.from_step is None else max(first, window.from_step)
    return low, last if window.to_step is None else min(last, window.to_step)


def _points(connection: sa.Connection, source: Source, how: str, first: int, last: int, *, width: int | None) -> tuple[int, NDArray[Any]]:
    """How many steps there are from `first` to `last`, and rows of step, time and value."""
    if width is None:
        return _steps(connection, source, how, first, last)
    low, high = -(-first // width), min(last + 1, rolled_end(connection, source)) // width - 1
    columns = sa.select(BLOCKS.extremes).where(*source.of(BLOCKS), BLOCKS.width == width, BLOCKS.block.between(low, high))
    blocks = connection.scalars(columns.order_by(BLOCKS.block)).all() if low <= high else []
    if not blocks or None in blocks:  # blocks from before they had extremes
        return _steps(connection, source, how, first, last)
    count, points = extremes.points_of(blocks, how)
    ends = ((first, low * width - 1), ((high + 1) * width, last))
    (before, head), (behind, tail) = (_steps(connection, source, how, *end) for end in ends)
    found = np.concatenate([head, points, tail])
    return before + count + behind, found[np.unique(found[:, 0], return_index=True)[1]]


def _steps(connection: sa.Connection, source: Source, how: str, first: int, last: int) -> tuple[int, NDArray[Any]]:
    """In the order of the key, so that no row outside is touched and nothing is sorted."""
    query = sa.select(ROW.step, ROW.at, VALUES[how]).where(*source.of(ROW), ROW.step.between(first, last)).order_by(ROW.step)
    rows = connection.execute(query).all() if first <= last else []
    return len(rows), np.array([tuple(row) for row in rows], np.float64).reshape(-1, 3)  # None becomes NaN
