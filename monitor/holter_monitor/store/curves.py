"""A run's curves from the step summaries, thinned in the database and in the rollups.

A restart repeats steps. Along the run a step's newest attempt counts, so an attempt ends where a later one begins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from holter_monitor.store.rollups import BLOCK, Buckets, Rollups, Source
from holter_monitor.store.tables import attempts, step_summaries

SAMPLE = 1_001
"""Steps that the base of the step time is taken from; a median of so many is good to some 4 % of the spread."""
STARTING = 20
"""Steps at the begin of an attempt that are not judged: compilation and cold caches make them slow (as `pace.Pace.warmup_records`)."""
STEP_TIME = "step_time_seconds"
ROW = step_summaries.c


@dataclass(frozen=True, slots=True)
class Stretch:
    """The steps of one attempt that no later attempt repeats, both ends included."""

    attempt: str
    first: int
    last: int
    begun: int
    """The attempt's own first step."""


def stretches(connection: sa.Connection, run: str, from_step: int | None, to_step: int | None) -> list[Stretch]:
    """In the order of the steps. Nothing for a run that has not stepped."""
    query = (
        sa.select(attempts.c.attempt, attempts.c.first_step, attempts.c.last_step)
        .where(attempts.c.run == run)
        .order_by(attempts.c.number.desc())
    )
    low, ceiling = from_step if from_step is not None else 0, to_step
    found: list[Stretch] = []
    for attempt, first, last in connection.execute(query):
        if first is None or last is None:
            continue
        end = last if ceiling is None else min(last, ceiling)
        if max(first, low) <= end:
            found.append(Stretch(attempt, max(first, low), end, begun=first))
        ceiling = first - 1 if ceiling is None else min(ceiling, first - 1)
    return found[::-1]


@dataclass(frozen=True, slots=True)
class Reader:
    """Asks for curves of one run along its stretches, in buckets of `width` steps."""

    connection: sa.Connection
    run: str
    along: Sequence[Stretch]
    width: int
    rollups: Rollups

    def _buckets(self, metric: str, along: Sequence[Stretch], base: float | None = None) -> Iterator[Buckets]:
        for stretch in along:
            source = Source(self.run, metric, stretch.attempt)
            yield self.rollups.buckets(self.connection, source, stretch.first, stretch.last, width=self.width, base=base)

    def curve(self, metric: str) -> dict[str, list[Any]]:
        """Columns `step, time, mean, min, max, non_finite`, one entry a bucket; a spike of one step stays in `min` and `max`."""
        found: dict[str, list[Any]] = {name: [] for name in ("step", "time", "mean", "min", "max", "non_finite")}
        for buckets in self._buckets(metric, self.along):
            with np.errstate(invalid="ignore", divide="ignore"):
                mean = buckets.sum_mean / buckets.count
            found["step"] += buckets.step.tolist()
            found["time"] += buckets.time.tolist()
            for name, values in (("mean", mean), ("min", buckets.min), ("max", buckets.max)):
                found[name] += [None if math.isnan(value) else value for value in values.tolist()]
            found["non_finite"] += buckets.non_finite.astype(int).tolist()
        return found

    def total(self, metric: str) -> tuple[list[int], list[float]]:
        """The first step of each bucket and the sum of `metric` over all ranks and steps up to the bucket's end (tokens seen)."""
        return self._summed(self._buckets(metric, self.along), "amount")

    def lost(self) -> dict[str, Any]:
        """Seconds lost so far to steps that took longer than the run's median step, and their share of all the time spent in steps. An attempt's
        first `STARTING` steps are left out."""
        settled = [Stretch(s.attempt, max(s.first, s.begun + STARTING), s.last, s.begun) for s in self.along]
        base = median(self.connection, self.run, STEP_TIME, settled)
        if base is None:
            return {"step": [], "seconds": [], "share": None, "base": None}
        steps, seconds = self._summed(self._buckets(STEP_TIME, settled, base), "excess")
        spent = self.spent(settled)
        return {"step": steps, "seconds": seconds, "share": seconds[-1] / spent if seconds and spent else None, "base": base}

    def spent(self, along: Sequence[Stretch]) -> float:
        """Wall seconds in the steps of the stretches: a step lasts as long as its slowest rank."""
        return sum(float(buckets.longest.sum()) for buckets in self._buckets(STEP_TIME, along))

    def excess(self, along: Sequence[Stretch], base: float) -> float:
        """Wall seconds of these steps beyond `base`, each."""
        return sum(float(buckets.excess.sum()) for buckets in self._buckets(STEP_TIME, along, base))

    @staticmethod
    def _summed(pieces: Iterable[Buckets], column: str) -> tuple[list[int], list[float]]:
        steps: list[int] = []
        values: list[float] = []
        for buckets in pieces:
            so_far = values[-1] if values else 0.0
            steps += buckets.step.tolist()
            values += (so_far + np.cumsum(getattr(buckets, column))).tolist()
        return steps, values


def width_of(along: Sequence[Stretch], points: int) -> int:
    """Steps in a bucket, so that there are at most `points`; a wide one is a multiple of the rollups' block."""
    if not along:
        return 1
    width = max(1, -(-(along[-1].last - along[0].first + 1) // points))
    return width if width < BLOCK else -(-width // BLOCK) * BLOCK


def median(connection: sa.Connection, run: str, metric: str, along: Sequence[Stretch]) -> float | None:
    """Of every n-th step: the stride is odd, so that it does not beat with what recurs every 2, 10 or 100 steps."""
    steps = sum(max(0, stretch.last - stretch.first + 1) for stretch in along)
    stride = max(1, steps // SAMPLE) | 1
    values: list[float] = []
    for stretch in along:
        chosen = list(range(stretch.first, stretch.last + 1, stride))
        mine = (ROW.run == run, ROW.metric == metric, ROW.attempt == stretch.attempt)
        for start in range(0, len(chosen), 500):  # SQLite's limit on variables is a thousand in old versions
            query = sa.select(ROW.max).where(*mine, ROW.step.in_(chosen[start : start + 500]))
            values += [value for value in connection.execute(query).scalars() if value is not None]
    return sorted(values)[len(values) // 2] if values else None
