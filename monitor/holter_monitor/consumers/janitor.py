"""The thread that tidies: trims the frame log behind both consumers, tallies where runs' time went, and forgets old points."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from holter_monitor.consumers.pipeline import Consumer
from holter_monitor.errors import MonitorError
from holter_monitor.store.ports import FrameLog

logger = logging.getLogger(__name__)
TRIM_SECONDS = 2.0
"""The log's file holds what came in meanwhile, and does not shrink: at the design load 2.5 MB a second."""
TALLY_SECONDS = 10.0
FORGET_SECONDS = 3_600.0


@dataclass
class Round:
    """What is done every so many seconds."""

    what: Callable[[], int]
    every: float
    due: float

    def go(self, now: float) -> None:
        if now >= self.due:
            self.due = now + self.every
            self.what()


class Janitor:
    def __init__(
        self, log: FrameLog, consumers: list[Consumer], *, forget: Callable[[], int], tally: Callable[[], int] | None = None
    ) -> None:
        self._log, self._consumers = log, consumers
        rounds = {forget: FORGET_SECONDS} | ({tally: TALLY_SECONDS} if tally else {})
        self._rounds = [Round(what, every, time.monotonic() + every) for what, every in rounds.items()]
        self._stopping = threading.Event()
        self._working = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="holter-janitor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def _run(self) -> None:
        while not self._stopping.wait(TRIM_SECONDS):
            try:
                self.tidy()
                for each in self._rounds:
                    each.go(time.monotonic())
            except MonitorError as error:
                logger.warning("tidying up has to wait: %s", error)
            except Exception:
                logger.exception("tidying up")  # a thread that ended here would let the log grow until the disk is full

    def tidy(self) -> None:
        """Trim what every consumer has finished with; piece by piece, so that an append never waits long."""
        with self._working:
            through = min(consumer.needed_from for consumer in self._consumers)
            while not self._stopping.is_set() and self._log.trim(through):
                self._stopping.wait(0.02)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Nothing is trimmed meanwhile."""
        with self._working:
            yield
