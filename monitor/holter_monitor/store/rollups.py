"""Steps of a curve in buckets: from blocks that were rolled up when they were complete (`rolling`), and from the summaries where none is yet.

A million steps are 245 rows of the widest block, so a restart reads nothing anew and a zoom costs what it shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from holter_monitor.store.tables import step_rollups, step_summaries

WIDTHS = (64, 512, 4_096)
"""Steps in a block of each level; each width divides the next. A thousand points are at most 8,000 rows at any zoom."""
BLOCK = WIDTHS[0]
STEP_TIME = "step_time_seconds"
DATA_WAIT = "data_wait_seconds"
PER_STEP = (STEP_TIME, DATA_WAIT)
"""The metrics whose blocks carry each step's slowest rank too: time lost needs the single step."""
ROW = step_summaries.c
BLOCKS = step_rollups.c


@dataclass(frozen=True, slots=True)
class Source:
    """A metric of an attempt."""

    run: str
    metric: str
    attempt: str

    def of(self, columns: Any) -> tuple[sa.ColumnElement[bool], ...]:
        """The conditions on a table's columns, in the order of its key."""
        return columns.run == self.run, columns.metric == self.metric, columns.attempt == self.attempt


@dataclass(frozen=True, slots=True)
class Buckets:
    """Columns of equal length, a row a bucket that has any step. NaN where a bucket has no finite value. The names are the columns of `step_rollups`."""

    step: NDArray[Any]
    """The first one that is in."""
    at: NDArray[Any]
    """The newest."""
    sum_mean: NDArray[Any]
    count: NDArray[Any]
    """Of means: steps that had a finite value."""
    min: NDArray[Any]
    max: NDArray[Any]
    non_finite: NDArray[Any]
    amount: NDArray[Any]
    """Sum over steps and ranks."""

    def __len__(self) -> int:
        return len(self.step)

    def __add__(self, later: Buckets) -> Buckets:
        if not len(self):
            return later
        return Buckets(*(np.concatenate([getattr(self, name), getattr(later, name)]) for name in self.__slots__)) if len(later) else self

    def merged(self, width: int) -> Buckets:
        """Wider buckets of `width` steps."""
        if not len(self):
            return self
        wide = self.step // width
        starts = np.flatnonzero(np.append(True, wide[1:] != wide[:-1]))
        return Buckets(**{name: _HOW.get(name, np.add).reduceat(getattr(self, name), starts) for name in self.__slots__})


_HOW = {"step": np.minimum, "at": np.maximum, "min": np.fmin, "max": np.fmax}
_NOTHING = Buckets(np.zeros(0, np.int64), *(np.zeros(0) for _ in range(7)))


def buckets(connection: sa.Connection, source: Source, first: int, last: int, *, width: int) -> Buckets:
    """The steps `first` to `last` of an attempt in buckets of `width` steps. A `width` of `BLOCK` or more is a multiple of a level's."""
    if width < BLOCK:
        return read(connection, source, first, last, width=width)
    levels = [level for level in WIDTHS if width % level == 0]
    return _cover(connection, source, first, last, levels=levels, end=rolled_end(connection, source)).merged(width)


def rolled_end(connection: sa.Connection, source: Source) -> int:
    """The first step that is in no block yet."""
    newest = connection.scalar(sa.select(sa.func.max(BLOCKS.block)).where(*source.of(BLOCKS), BLOCKS.width == BLOCK))
    return 0 if newest is None else (int(newest) + 1) * BLOCK


def _cover(connection: sa.Connection, source: Source, first: int, last: int, *, levels: list[int], end: int) -> Buckets:
    """The widest blocks that lie inside, and the ends from narrower ones, down to the single steps."""
    if first > last:
        return _NOTHING
    if not levels:
        return read(connection, source, first, last, width=BLOCK)
    level, narrower = levels[-1], levels[:-1]
    low, high = -(-first // level), min(last + 1, end) // level - 1
    if high < low:
        return _cover(connection, source, first, last, levels=narrower, end=end)
    head = _cover(connection, source, first, low * level - 1, levels=narrower, end=end)
    tail = _cover(connection, source, (high + 1) * level, last, levels=narrower, end=end)
    return head + stored(connection, source, low, high, width=level) + tail


def stored(connection: sa.Connection, source: Source, low: int, high: int, *, width: int) -> Buckets:
    """The rolled blocks `low` to `high` of a level."""
    columns = [BLOCKS[name] for name in Buckets.__slots__]
    query = sa.select(*columns).where(*source.of(BLOCKS), BLOCKS.width == width, BLOCKS.block.between(low, high)).order_by(BLOCKS.block)
    return _columns(connection.execute(query).all())


def read(connection: sa.Connection, source: Source, first: int, last: int, *, width: int) -> Buckets:
    """The steps `first` to `last` from the summaries, one scan in the database."""
    bucket = ROW.step // width
    columns = (
        *(sa.func.min(ROW.step), sa.func.max(ROW.at), sa.func.coalesce(sa.func.sum(ROW.mean), 0.0), sa.func.count(ROW.mean)),
        *(sa.func.min(ROW.min), sa.func.max(ROW.max), sa.func.sum(ROW.non_finite)),
        sa.func.coalesce(sa.func.sum(ROW.mean * ROW.count), 0.0),
    )
    query = sa.select(*columns).where(*source.of(ROW), ROW.step.between(first, last)).group_by(bucket).order_by(bucket)
    return _columns(connection.execute(query).all()) if first <= last else _NOTHING


def _columns(rows: Any) -> Buckets:
    if not rows:
        return _NOTHING
    step, *others = zip(*rows, strict=True)
    return Buckets(np.array(step, np.int64), *(np.array(column, np.float64) for column in others))  # None becomes NaN


def durations(connection: sa.Connection, source: Source, first: int, last: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Each step and how long its slowest rank took, of an attempt's metric of `PER_STEP`; steps without a finite value are left out."""
    step, seconds, _ = clocked(connection, source, first, last)
    return step, seconds


def clocked(connection: sa.Connection, source: Source, first: int, last: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """As `durations`, with when each step ended. A block remembers its end only: its steps are laid one after another up to there."""
    end = rolled_end(connection, source)
    query = sa.select(BLOCKS.block, BLOCKS.at, BLOCKS.maxima).where(*source.of(BLOCKS), BLOCKS.width == BLOCK).order_by(BLOCKS.block)
    within = query.where(BLOCKS.block.between(first // BLOCK, last // BLOCK), BLOCKS.maxima.is_not(None))
    rows = connection.execute(within).all() if first < end else []
    block = np.array([row[0] for row in rows], np.int64)
    old = np.frombuffer(b"".join([row[2] for row in rows]), "<f8")
    after = np.nancumsum(old.reshape(-1, BLOCK)[:, ::-1], axis=1)[:, ::-1] - np.nan_to_num(old.reshape(-1, BLOCK))
    ended = (np.array([row[1] for row in rows])[:, None] - after).reshape(-1)
    at = (block[:, None] * BLOCK + np.arange(BLOCK)).reshape(-1)
    newer = sa.select(ROW.step, ROW.max, ROW.at).where(*source.of(ROW), ROW.step.between(max(first, end), last)).order_by(ROW.step)
    new = connection.execute(newer).all()
    step = np.concatenate([at, np.array([row[0] for row in new], np.int64)])
    seconds = np.concatenate([old, np.array([row[1] for row in new], np.float64)])
    finish = np.concatenate([ended, np.array([row[2] for row in new], np.float64)])
    kept = (step >= first) & (step <= last) & ~np.isnan(seconds)
    return step[kept], seconds[kept], finish[kept]
