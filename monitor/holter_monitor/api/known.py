"""Which runs there are, for ingest: a frame's run is looked up two thousand times a second, on the event loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from holter_monitor.api.aside import Aside
from holter_monitor.errors import Unavailable
from holter_monitor.store import runs
from holter_monitor.store.control import Control

FRESH_SECONDS = 2.0
MISSES = 10_000


@dataclass(slots=True)
class KnownRun:
    project: str
    advice: dict[str, Any]
    stacks_asked: dict[str, Any] | None
    until: float


class KnownRuns:
    """Remembers. What is older than `FRESH_SECONDS` is still answered, and asked for again meanwhile: a control store that is slow or away holds
    no frame up. An operator's advice reaches the agents with it, from any collector of several."""

    def __init__(self, control: Control, clock: Callable[[], float] = time.monotonic) -> None:
        self._control, self._clock = control, clock
        self._runs: dict[str, KnownRun] = {}
        self._misses: dict[str, float] = {}
        self._asking: set[str] = set()
        self._aside = Aside("holter-known")

    async def seek(self, run: str) -> KnownRun | None:
        """`find`, for the event loop."""
        if run in self._runs or self._misses.get(run, 0.0) > self._clock():
            return self.find(run)
        return await self._aside.ask(lambda: self._ask(run))

    def find(self, run: str) -> KnownRun | None:
        """Raises `Unavailable` for a run that was never asked for while the control store is away."""
        now = self._clock()
        known = self._runs.get(run)
        if known is not None:
            if known.until <= now:
                known.until = now + FRESH_SECONDS
                self._begin(run)
            return known
        if self._misses.get(run, 0.0) > now:
            return None
        return self._ask(run)

    def _begin(self, run: str) -> None:
        if run not in self._asking:  # of a store that hangs nobody asks the same twice
            self._asking.add(run)
            self._aside.begin(lambda: self._refresh(run))

    def _refresh(self, run: str) -> None:
        try:
            self._ask(run)
        except Unavailable:
            return  # the old answer stands; the next frame after `FRESH_SECONDS` asks again
        finally:
            self._asking.discard(run)

    def _ask(self, run: str) -> KnownRun | None:
        with self._control.read() as connection:
            row = runs.one(connection, run)
        if row is None:
            if len(self._misses) >= MISSES:
                self._misses.clear()
            self._misses[run] = self._clock() + FRESH_SECONDS
            self._runs.pop(run, None)
            return None
        self._runs[run] = known = KnownRun(row["project"], row["advice"], row["stacks_asked"], self._clock() + FRESH_SECONDS)
        return known

    def forget(self, run: str) -> None:
        self._runs.pop(run, None)
        self._misses.pop(run, None)

    def close(self) -> None:
        self._aside.close()
