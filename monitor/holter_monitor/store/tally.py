"""Writes where each run's wall time went into hours, so that fleets and dashboards are sums of rows. Behind the detection, by the janitor."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from holter_monitor import goodput
from holter_monitor.store.control import Control
from holter_monitor.store.goodput import lives
from holter_monitor.store.tables import breaks, goodput_hours, runs

logger = logging.getLogger(__name__)
HOUR = 3_600.0
REST = 50.0
"""A run that took a second to tally is left alone for so many: at most 2 % of a core."""
SETTLED_SECONDS = 60.0
"""A run is tallied until so long after its last word: its last steps are summed up when no rank can be waited for any more."""
AT_ONCE = 50
"""Runs of one call: the others wait for the next."""


class Tally:
    """Remembers how long each run took. Used by one thread."""

    def __init__(self, control: Control, clock: Callable[[], float] = time.time) -> None:
        self._control, self._clock = control, clock
        self._due: dict[str, float] = {}

    def catch_up(self) -> int:
        """Tally runs that have said something since they were tallied; how many. Raises `MonitorError`."""
        now = self._clock()
        self._due = {run: due for run, due in self._due.items() if due > now}
        done = 0
        for run in self._stale():
            if run in self._due or done == AT_ONCE:
                continue
            began = self._clock()
            self._write(run, began)
            self._due[run] = self._clock() + REST * (self._clock() - began)
            done += 1
        return done

    def _stale(self) -> list[str]:
        late = sa.or_(runs.c.tallied_at.is_(None), runs.c.tallied_at < runs.c.updated_at + SETTLED_SECONDS)
        with self._control.read() as connection:
            return list(connection.scalars(sa.select(runs.c.id).where(late).order_by(runs.c.updated_at.desc())))

    def _write(self, run: str, now: float) -> None:
        with self._control.read() as connection:
            found = lives(connection, run)
        hours = goodput.account(found).binned(HOUR) if found else []
        ranks = {life.attempt: life.ranks for life in found}
        lost = [_break(run, each, ranks[each.attempt]) for each in goodput.breaks(found)]
        names = ("hour_at", "cause", "seconds", "rank_seconds")
        with self._control.write() as connection:
            for table, rows in ((goodput_hours, [{"run": run} | dict(zip(names, row, strict=True)) for row in hours]), (breaks, lost)):
                connection.execute(table.delete().where(table.c.run == run))
                if rows:
                    connection.execute(table.insert(), rows)
            connection.execute(runs.update().where(runs.c.id == run).values(tallied_at=now))


def _break(run: str, each: goodput.Break, ranks: int) -> dict[str, Any]:
    names = ("attempt", "state", "at", "down_seconds", "startup_seconds", "recomputed_seconds")
    return {"run": run, "ranks": ranks} | {name: getattr(each, name) for name in names}
