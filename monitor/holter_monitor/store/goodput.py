"""Where a run's wall time went: steps that count, slow steps, steps that a restart repeated, starting, standing still between attempts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from holter_monitor.store import curves
from holter_monitor.store.curves import Stretch
from holter_monitor.store.rollups import STEP_TIME
from holter_monitor.store.tables import attempts, step_summaries

ROW = step_summaries.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """Seconds of the run's wall time; the parts add up to `wall_seconds`."""

    wall_seconds: float
    """From the first attempt's start to the newest step."""
    productive_seconds: float
    """In steps that count, each at most as long as the median step."""
    slow_seconds: float
    """What steps took beyond the median: stalls, checkpoints, evaluations."""
    starting_seconds: float
    """From an attempt's start to its first step, and what its first steps took beyond the median."""
    repeated_seconds: float
    """In steps that a later attempt did again."""
    down_seconds: float
    """Between attempts."""
    other_seconds: float
    """In an attempt but in no step that was recorded."""

    @property
    def goodput(self) -> float | None:
        return self.productive_seconds / self.wall_seconds if self.wall_seconds > 0 else None


@dataclass(frozen=True, slots=True)
class _Life:
    """One attempt by its own steps' clock."""

    start: float
    end: float
    starting: float
    """Seconds before its first step."""
    step: NDArray[Any]
    seconds: NDArray[Any]
    """How long each step took."""

    def within(self, stretch: Stretch) -> NDArray[Any]:
        return self.seconds[np.searchsorted(self.step, stretch.first) : np.searchsorted(self.step, stretch.last, side="right")]


def of(connection: sa.Connection, run: str) -> Goodput | None:
    """None for a run whose steps carry no times yet."""
    along = [stretch for stretch in curves.stretches(connection, run, None, None) if stretch.first <= stretch.last]
    lives = _lives(connection, run)
    counted = [lives[stretch.attempt].within(stretch) for stretch in along if stretch.attempt in lives]
    late = [lives[stretch.attempt].within(stretch) for stretch in curves.settled(along) if stretch.attempt in lives]
    base = curves.median(late) or curves.median(counted)
    if not lives or base is None:
        return None
    spent, slow = sum(float(piece.sum()) for piece in counted), _excess(late, base)
    productive = spent - _excess(counted, base)
    ordered = list(lives.values())
    wall = ordered[-1].end - ordered[0].start
    starting = sum(life.starting for life in ordered) + spent - productive - slow
    repeated = sum(float(life.seconds.sum()) for life in ordered) - spent
    down = sum(max(0.0, later.start - life.end) for life, later in itertools.pairwise(ordered))
    return Goodput(
        wall_seconds=wall,
        productive_seconds=productive,
        slow_seconds=slow,
        starting_seconds=starting,
        repeated_seconds=repeated,
        down_seconds=down,
        other_seconds=max(0.0, wall - productive - slow - starting - repeated - down),
    )


def _excess(pieces: Sequence[NDArray[Any]], base: float) -> float:
    return sum(float(np.maximum(piece - base, 0.0).sum()) for piece in pieces)


def _lives(connection: sa.Connection, run: str) -> dict[str, _Life]:
    """Attempts with at least one timed step, in their order. Their clock is the steps' own: what was replayed or spooled arrived later."""
    query = sa.select(attempts.c.attempt, attempts.c.started_at, attempts.c.first_step, attempts.c.last_step)
    lives: dict[str, _Life] = {}
    for attempt, started, first, last in connection.execute(query.where(attempts.c.run == run).order_by(attempts.c.number)).all():
        if first is None or last is None:
            continue
        mine = (ROW.run == run, ROW.metric == STEP_TIME, ROW.attempt == attempt)
        ends = [connection.execute(sa.select(ROW.at, ROW.max).where(*mine).order_by(order).limit(1)).one_or_none() for order in ORDERS]
        if ends[0] is None or ends[1] is None:
            continue
        began = ends[0].at - (ends[0].max or 0.0)
        start = min(started, began)
        lives[attempt] = _Life(start, ends[1].at, began - start, *curves.times(connection, run, Stretch(attempt, first, last, first)))
    return lives


ORDERS = (ROW.step.asc(), ROW.step.desc())
"""An attempt's first step, and its last."""
