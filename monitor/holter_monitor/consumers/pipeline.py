"""The two consumers of the frame log. Each follows it by offset, commits its offset together with its effect, and may be killed at any line."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from holter.errors import FrameError

from holter_monitor.errors import MonitorError
from holter_monitor.meters import Meters
from holter_monitor.store.ports import Entry, FrameLog, SampleStore

logger = logging.getLogger(__name__)
BATCH_FRAMES = 4_096
GATHER_SECONDS = 0.5
"""A batch of 8,000 rows costs DuckDB half of what eight of 1,000 do; half a second more of lag costs nobody anything."""
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)


class Consumer(ABC):
    """A thread that reads the log behind its offset and works through it, for ever retrying what fails: the log keeps it safe meanwhile."""

    name: str
    gather_seconds = 0.0
    """How long the first entry waits for company."""
    apart_seconds = 0.0
    """How long after the begin of a batch the next one begins at the soonest."""

    def __init__(self, log: FrameLog, meters: Meters, clock: Callable[[], float] = time.time) -> None:
        self._log, self._meters, self._clock = log, meters, clock
        self.offset = 0
        self.oldest_waiting: float | None = None
        """When the oldest entry that is still to do was received; None if all is done."""
        self.trouble: str | None = None
        """What keeps it from going on, if something does."""
        self._begun_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"holter-{self.name}", daemon=True)

    def start(self) -> None:
        self.offset = self.begin()
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(10)

    @property
    def needed_from(self) -> int:
        """All entries up to this offset may be forgotten."""
        return self.offset

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @abstractmethod
    def begin(self) -> int:
        """Bring the state to where the last life ended; the answer is the offset from which to go on."""

    @abstractmethod
    def work(self, entries: Sequence[Entry]) -> int:
        """Take in the entries and make their effect durable, together with the offset of the last, which is the answer. After a failure it is
        called again with the same entries, or more."""

    def idle(self) -> None:  # noqa: B027  not every consumer has something to do then
        """Called between batches, at least each second."""

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                self._turn()
                failures, self.trouble = 0, None
            except MonitorError as error:
                failures = self._failed(failures, str(error))
            except Exception as error:
                # A thread that died would look like a quiet one: it stays, says so in /readyz, and tries again.
                logger.exception("the consumer %s failed", self.name)
                failures = self._failed(failures, f"{type(error).__name__}: {error}")

    def _turn(self) -> None:
        if self._log.wait(self.offset, timeout=1.0):
            self._stopping.wait(max(self.gather_seconds, self._begun_at + self.apart_seconds - time.monotonic()))
            self._begun_at = time.monotonic()
            entries = self._log.read(self.offset, BATCH_FRAMES)
            if entries:
                self.oldest_waiting = entries[0].received
                readable = [entry for entry in entries if self._is_readable(entry)]
                self.offset = self.work(readable) if readable else entries[-1].offset
        else:
            self.oldest_waiting = None
        self.idle()

    def _is_readable(self, entry: Entry) -> bool:
        """Ingest lets no frame in that cannot be decoded; a disk may still have turned one over. It must not stop all that come after it."""
        try:
            return entry.frame is not None
        except FrameError:
            logger.exception("the frame at offset %d cannot be read and is left out", entry.offset)
            self._meters.frames.labels("unreadable").inc()
            return False

    def _failed(self, failures: int, sentence: str) -> int:
        self._meters.failures.labels(self.name).inc()
        if self.trouble != sentence:
            logger.warning("the consumer %s cannot go on: %s", self.name, sentence)
        self.trouble = sentence
        self._stopping.wait(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
        return failures + 1


class SampleWriter(Consumer):
    """Frames → per-rank points. The offset lives in the sample store's own transaction."""

    name = "samples"
    gather_seconds = GATHER_SECONDS

    def __init__(self, log: FrameLog, samples: SampleStore, meters: Meters) -> None:
        super().__init__(log, meters)
        self._samples = samples

    def begin(self) -> int:
        return self._samples.offset()

    def work(self, entries: Sequence[Entry]) -> int:
        surplus = self._samples.write(entries)
        if surplus:
            self._meters.left_out.labels("metric_overflow").inc(surplus)
        return entries[-1].offset
