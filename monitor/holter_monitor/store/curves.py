"""A run's curves from the step summaries, thinned in the database and in the rollups.

A restart repeats steps. Along the run a step's newest attempt counts, so an attempt ends where a later one begins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from holter_monitor.goodput import STARTING
from holter_monitor.store import rollups
from holter_monitor.store.rollups import STEP_TIME, WIDTHS, Buckets, Source
from holter_monitor.store.tables import attempts


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

    def _buckets(self, metric: str) -> Iterator[Buckets]:
        for stretch in self.along:
            source = Source(self.run, metric, stretch.attempt)
            yield rollups.buckets(self.connection, source, stretch.first, stretch.last, width=self.width)

    def curve(self, metric: str) -> dict[str, list[Any]]:
        """Columns `step, time, mean, min, max, non_finite`, one entry a bucket; a spike of one step stays in `min` and `max`."""
        found: dict[str, list[Any]] = {name: [] for name in ("step", "time", "mean", "min", "max", "non_finite")}
        for buckets in self._buckets(metric):
            with np.errstate(invalid="ignore", divide="ignore"):
                mean = buckets.sum_mean / buckets.count
            found["step"] += buckets.step.tolist()
            found["time"] += buckets.at.tolist()
            for name, values in (("mean", mean), ("min", buckets.min), ("max", buckets.max)):
                found[name] += [None if math.isnan(value) else value for value in values.tolist()]
            found["non_finite"] += buckets.non_finite.astype(int).tolist()
        return found

    def total(self, metric: str) -> tuple[list[int], list[float]]:
        """The first step of each bucket and the sum of `metric` over all ranks and steps up to the bucket's end (tokens seen)."""
        found = list(self._buckets(metric))
        amounts = [buckets.amount for buckets in found]
        steps = [step for buckets in found for step in buckets.step.tolist()]
        return steps, (np.cumsum(np.concatenate(amounts)).tolist() if amounts else [])

    def lost(self) -> dict[str, Any]:
        """Seconds lost so far to steps that took longer than the run's median step, and their share of all the time spent in steps. An attempt's
        first `STARTING` steps are left out."""
        pieces = [times(self.connection, self.run, stretch) for stretch in settled(self.along)]
        base = median([seconds for _, seconds in pieces])
        if base is None:
            return {"step": [], "seconds": [], "share": None, "base": None}
        kept = [(step, seconds) for step, seconds in pieces if len(step)]
        starts = [np.flatnonzero(np.diff(step // self.width, prepend=-1)) for step, _ in kept]
        excess = [np.add.reduceat(np.maximum(seconds - base, 0.0), at) for (_, seconds), at in zip(kept, starts, strict=True)]
        lost = np.cumsum(np.concatenate(excess))
        spent = sum(float(seconds.sum()) for _, seconds in kept)
        steps = np.concatenate([step[at] for (step, _), at in zip(kept, starts, strict=True)])
        return {"step": steps.tolist(), "seconds": lost.tolist(), "share": float(lost[-1]) / spent if spent else None, "base": base}


def settled(along: Sequence[Stretch]) -> list[Stretch]:
    """The stretches without their attempts' first steps."""
    return [Stretch(s.attempt, max(s.first, s.begun + STARTING), s.last, s.begun) for s in along]


def times(connection: sa.Connection, run: str, stretch: Stretch) -> tuple[NDArray[Any], NDArray[Any]]:
    """The stretch's steps and how long each took: as long as its slowest rank."""
    return rollups.durations(connection, Source(run, STEP_TIME, stretch.attempt), stretch.first, stretch.last)


def median(pieces: Sequence[NDArray[Any]]) -> float | None:
    values = np.concatenate([*pieces, np.zeros(0)])
    return float(np.partition(values, len(values) // 2)[len(values) // 2]) if len(values) else None


def width_of(along: Sequence[Stretch], points: int) -> int:
    """Steps in a bucket, so that there are at most `points`; a wide one is a multiple of the widest block that it holds."""
    if not along:
        return 1
    width = max(1, -(-(along[-1].last - along[0].first + 1) // points))
    level = max((level for level in WIDTHS if level <= width), default=1)
    return -(-width // level) * level
