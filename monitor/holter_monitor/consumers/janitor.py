"""The thread that tidies: trims the frame log behind both consumers, tallies where runs' time went, and forgets old points."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from holter_monitor.consumers.pipeline import Consumer
from holter_monitor.errors import MonitorError
from holter_monitor.store.ports import FrameLog

logger = logging.getLogger(__name__)
EVERY_SECONDS = 10.0
FORGET_SECONDS = 3_600.0


class Janitor:
    def __init__(
        self, log: FrameLog, consumers: list[Consumer], *, forget: Callable[[], int], tally: Callable[[], int] | None = None
    ) -> None:
        self._log, self._consumers, self._forget, self._tally = log, consumers, forget, tally
        self._forgot_at = time.monotonic()
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
        while not self._stopping.wait(EVERY_SECONDS):
            try:
                self.tidy()
                if self._tally is not None:
                    self._tally()
                if time.monotonic() - self._forgot_at >= FORGET_SECONDS:
                    self._forgot_at = time.monotonic()
                    self._forget()
            except MonitorError as error:
                logger.warning("tidying up has to wait: %s", error)

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
