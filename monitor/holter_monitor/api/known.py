"""Which runs there are, for ingest: a frame's run is looked up two thousand times a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from holter_monitor.store import runs
from holter_monitor.store.control import Control

FRESH_SECONDS = 2.0
MISSES = 10_000


@dataclass(frozen=True, slots=True)
class KnownRun:
    project: str
    advice: dict[str, Any]
    until: float


class KnownRuns:
    """Remembers for `FRESH_SECONDS`; an operator's advice reaches the agents within that time, from any collector of several."""

    def __init__(self, control: Control, clock: Callable[[], float] = time.monotonic) -> None:
        self._control, self._clock = control, clock
        self._runs: dict[str, KnownRun] = {}
        self._misses: dict[str, float] = {}

    def find(self, run: str) -> KnownRun | None:
        now = self._clock()
        known = self._runs.get(run)
        if known is not None and known.until > now:
            return known
        if self._misses.get(run, 0.0) > now:
            return None
        with self._control.read() as connection:
            row = runs.one(connection, run)
        if row is None:
            if len(self._misses) >= MISSES:
                self._misses.clear()
            self._misses[run] = now + FRESH_SECONDS
            return None
        self._runs[run] = known = KnownRun(row["project"], row["advice"], now + FRESH_SECONDS)
        return known

    def forget(self, run: str) -> None:
        self._runs.pop(run, None)
        self._misses.pop(run, None)
