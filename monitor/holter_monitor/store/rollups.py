"""Steps of a curve in buckets; old ones are kept in memory in blocks of `BLOCK` steps, so that a million steps are scanned once and then only
what is new.

A step's summary is written once, when the step closes, so a block that lies well behind the newest step does not change. What closes later all the
same (an agent that was away for long) is seen after `KEPT_SECONDS`, when the blocks are read anew.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from holter_monitor.store.tables import step_summaries

BLOCK = 64
"""Steps in a block: a million steps are 15,625 of them, 1 MB a metric."""
BEHIND = 4
"""Blocks behind the newest step that are not kept yet."""
KEPT_SECONDS = 900.0
CURVES = 128
"""Curves of attempts that are remembered; the one that was asked for longest ago goes first."""
DRIFT = 0.01
"""A base that moved by more makes the blocks' excess wrong: they are read anew."""
ROW = step_summaries.c


@dataclass(frozen=True, slots=True)
class Source:
    """A metric of an attempt."""

    run: str
    metric: str
    attempt: str


@dataclass(frozen=True, slots=True)
class Buckets:
    """Columns of equal length, a row a bucket that has any step. NaN where a bucket has no finite value."""

    bucket: NDArray[Any]
    """`step // width`."""
    step: NDArray[Any]
    time: NDArray[Any]
    sum_mean: NDArray[Any]
    count: NDArray[Any]
    min: NDArray[Any]
    max: NDArray[Any]
    non_finite: NDArray[Any]
    amount: NDArray[Any]
    """Sum over steps and ranks."""
    longest: NDArray[Any]
    """Sum over steps of the ranks' maximum: a step lasts as long as its slowest rank."""
    excess: NDArray[Any]
    """Sum over steps of what the ranks' maximum lies above the base; 0 without a base."""

    def __add__(self, later: Buckets) -> Buckets:
        return Buckets(*(np.concatenate([getattr(self, name), getattr(later, name)]) for name in self.__slots__))

    def between(self, first: int, last: int) -> Buckets:
        kept = (self.bucket >= first) & (self.bucket <= last)
        return Buckets(*(getattr(self, name)[kept] for name in self.__slots__))

    def merged(self, width: int) -> Buckets:
        """Wider buckets of `width` steps."""
        if not len(self.step):
            return self
        wide = self.step // width
        starts = np.flatnonzero(np.append(True, wide[1:] != wide[:-1]))
        how = {"min": np.fmin, "step": np.minimum, "time": np.maximum, "max": np.fmax}
        reduced = {name: how.get(name, _sum).reduceat(getattr(self, name), starts) for name in self.__slots__ if name != "bucket"}
        return Buckets(bucket=wide[starts], **reduced)


_sum = np.add
_NOTHING = Buckets(*(np.zeros(0, np.int64) for _ in range(2)), *(np.zeros(0) for _ in range(9)))


def read(connection: sa.Connection, source: Source, first: int, last: int, *, width: int, base: float | None = None) -> Buckets:
    """The steps `first` to `last`, one scan in the database."""
    excess: sa.ColumnElement[Any] = sa.literal(0.0)
    if base is not None:
        excess = sa.func.sum(sa.case((ROW.max > base, ROW.max - base), else_=0.0))
    bucket = ROW.step // width
    columns = (
        *(bucket, sa.func.min(ROW.step), sa.func.max(ROW.at), sa.func.coalesce(sa.func.sum(ROW.mean), 0.0), sa.func.count(ROW.mean)),
        *(
            sa.func.min(ROW.min),
            sa.func.max(ROW.max),
            sa.func.sum(ROW.non_finite),
            sa.func.coalesce(sa.func.sum(ROW.mean * ROW.count), 0.0),
        ),
        sa.func.coalesce(sa.func.sum(ROW.max), 0.0),
        excess,
    )
    mine = (ROW.run == source.run, ROW.metric == source.metric, ROW.attempt == source.attempt)
    query = sa.select(*columns).where(*mine, ROW.step.between(first, last)).group_by(bucket).order_by(bucket)
    rows = connection.execute(query).all() if first <= last else []
    if not rows:
        return _NOTHING
    found = list(zip(*rows, strict=True))
    whole = [np.array(column, np.int64) for column in found[:2]]
    return Buckets(*whole, *(np.array([np.nan if one is None else one for one in column], np.float64) for column in found[2:]))


@dataclass(slots=True)
class _Kept:
    since: float
    base: float | None
    blocks: Buckets = _NOTHING
    through: int = -1
    """The last block that is in, or would be if it had steps."""
    lock: threading.Lock = field(default_factory=threading.Lock)


class Rollups:
    """One for a collector. Safe to ask from many threads; two that ask for the same curve wait for one scan."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Source, bool], _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def buckets(
        self, connection: sa.Connection, source: Source, first: int, last: int, *, width: int, base: float | None = None
    ) -> Buckets:
        """The steps `first` to `last` of an attempt in buckets of `width` steps; narrow ones straight from the store. A wide `width` is a multiple
        of `BLOCK`."""
        if width < BLOCK:
            return read(connection, source, first, last, width=width, base=base)
        kept = self._entry(source, base)
        low, high = -(-first // BLOCK), (last + 1) // BLOCK - 1  # whole blocks
        if high < low:
            return read(connection, source, first, last, width=BLOCK, base=kept.base).merged(width)
        with kept.lock:
            final = high - BEHIND
            if kept.through < final:
                start = (kept.through + 1) * BLOCK
                kept.blocks = kept.blocks + read(connection, source, start, final * BLOCK + BLOCK - 1, width=BLOCK, base=kept.base)
                kept.through = final
            old, through = kept.blocks, min(kept.through, high)
        head = read(connection, source, first, low * BLOCK - 1, width=BLOCK, base=kept.base)
        tail = read(connection, source, max(first, (through + 1) * BLOCK), last, width=BLOCK, base=kept.base)
        return (head + old.between(low, through) + tail).merged(width)

    def _entry(self, source: Source, base: float | None) -> _Kept:
        now, key = time.monotonic(), (source, base is not None)
        with self._lock:
            found = self._kept.get(key)
            drifted = found is not None and base is not None and abs(base - (found.base or 0.0)) > DRIFT * abs(base)
            if found is None or drifted or now - found.since > KEPT_SECONDS:
                found = self._kept[key] = _Kept(now, base)
            self._kept.move_to_end(key)
            while len(self._kept) > CURVES:
                self._kept.popitem(last=False)
            return found
