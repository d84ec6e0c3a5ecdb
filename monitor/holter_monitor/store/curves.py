"""A run's curves from the step summaries, thinned in the database: a million steps cost one range scan a metric and never leave it whole.

A restart repeats steps. Along the run a step's newest attempt counts, so an attempt ends where a later one begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

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


def curve(connection: sa.Connection, run: str, metric: str, along: Sequence[Stretch], width: int) -> dict[str, list[Any]]:
    """Columns `step, time, mean, min, max, non_finite`, one entry a bucket of `width` steps; a spike of one step stays in `min` and `max`."""
    columns = (
        sa.func.min(ROW.step),
        sa.func.max(ROW.at),
        sa.func.avg(ROW.mean),
        sa.func.min(ROW.min),
        sa.func.max(ROW.max),
        sa.func.sum(ROW.non_finite),
    )
    rows = [row for stretch in along for row in connection.execute(_buckets(run, metric, stretch, width, *columns))]
    names = ("step", "time", "mean", "min", "max", "non_finite")
    return {name: [row[index] for row in rows] for index, name in enumerate(names)}


def total(connection: sa.Connection, run: str, metric: str, along: Sequence[Stretch], width: int) -> tuple[list[int], list[float]]:
    """Steps and, at each, the sum of `metric` over all ranks and steps so far (tokens seen)."""
    added = sa.func.sum(ROW.mean * ROW.count)
    return _summed(connection, run, metric, along, width, place=sa.func.max(ROW.step), added=added)


def lost(connection: sa.Connection, run: str, along: Sequence[Stretch], width: int) -> dict[str, Any]:
    """Seconds lost so far to steps that took longer than the run's median step, and their share of all the time spent in steps. An attempt's
    first `STARTING` steps are left out."""
    settled = [Stretch(s.attempt, max(s.first, s.begun + STARTING), s.last, s.begun) for s in along]
    base = median(connection, run, STEP_TIME, settled)
    if base is None:
        return {"step": [], "seconds": [], "share": None, "base": None}
    beyond = sa.func.sum(sa.case((ROW.max > base, ROW.max - base), else_=0.0))
    steps, seconds = _summed(connection, run, STEP_TIME, settled, width, place=sa.func.min(ROW.step), added=beyond)
    spent = sum(spent_seconds(connection, run, stretch) for stretch in settled)
    return {"step": steps, "seconds": seconds, "share": seconds[-1] / spent if seconds and spent else None, "base": base}


def _summed(
    connection: sa.Connection,
    run: str,
    metric: str,
    along: Sequence[Stretch],
    width: int,
    *,
    place: sa.ColumnElement[Any],
    added: sa.ColumnElement[Any],
) -> tuple[list[int], list[float]]:
    steps: list[int] = []
    values: list[float] = []
    so_far = 0.0
    for stretch in along:
        for step, value in connection.execute(_buckets(run, metric, stretch, width, place, added)):
            so_far += value or 0.0
            steps.append(step)
            values.append(so_far)
    return steps, values


def _buckets(run: str, metric: str, stretch: Stretch, width: int, *columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
    bucket = ROW.step // width
    return sa.select(*columns).where(*_of(run, metric, stretch)).group_by(bucket).order_by(bucket)


def _of(run: str, metric: str, stretch: Stretch) -> tuple[sa.ColumnElement[bool], ...]:
    return (ROW.run == run, ROW.metric == metric, ROW.attempt == stretch.attempt, ROW.step.between(stretch.first, stretch.last))


def spent_seconds(connection: sa.Connection, run: str, stretch: Stretch) -> float:
    """Wall time in the steps of the stretch: a step lasts as long as its slowest rank."""
    return float(connection.execute(sa.select(sa.func.sum(ROW.max)).where(*_of(run, STEP_TIME, stretch))).scalar() or 0.0)


def median(connection: sa.Connection, run: str, metric: str, along: Sequence[Stretch]) -> float | None:
    """Of every n-th step: the stride is odd, so that it does not beat with what recurs every 2, 10 or 100 steps."""
    steps = sum(max(0, stretch.last - stretch.first + 1) for stretch in along)
    stride = max(1, steps // SAMPLE) | 1
    values = [
        value
        for stretch in along
        for value in connection.execute(sa.select(ROW.max).where(*_of(run, metric, stretch), ROW.step % stride == 0)).scalars()
        if value is not None
    ]
    return sorted(values)[len(values) // 2] if values else None
