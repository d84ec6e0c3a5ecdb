"""Group commit: many requests, one thread, one durable commit for all that arrived meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from holter.frame import Frame

from holter_monitor.errors import MonitorError, Unavailable
from holter_monitor.meters import Meters
from holter_monitor.room import Room
from holter_monitor.store.ports import FrameLog, Outcome

GATHER_SECONDS = 0.01
"""How long the first frame of a group waits for company. At 2,000 frames/s it makes 100 commits a second into 40."""
RESERVE = 8
"""Of what may wait, an eighth more is kept for events and heartbeats: under overload points come late, and what became of a rank does not."""


@dataclass(slots=True)
class _Waiting:
    frame: Frame
    body: bytes
    answer: asyncio.Future[Outcome]


class Committer:
    """Takes frames from the event loop and answers each after it is durable. Memory is bounded: beyond `waiting_bytes` it refuses."""

    def __init__(self, log: FrameLog, meters: Meters, *, room: Room, waiting_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self._log, self._meters, self._clock, self._room, self._cap = log, meters, clock, room, waiting_bytes
        self._queue: list[_Waiting] = []
        self._bytes = 0
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="holter-commit", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Commit what waits, answer it, end the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(10)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    async def submit(self, frame: Frame, body: bytes) -> Outcome:
        """Wait until the frame is durable. Raises `Unavailable` or `DiskFull` (nothing is promised then)."""
        is_urgent = bool(frame.events) or not frame.rows
        self._room.check(is_urgent=is_urgent)
        waiting = _Waiting(frame, body, asyncio.get_running_loop().create_future())
        with self._wake:
            if self._stopping:
                raise Unavailable("the collector is shutting down", retry_after=5)
            if self._bytes + len(body) > self._cap + (self._cap // RESERVE if is_urgent else 0):
                raise Unavailable(f"{self._bytes} bytes wait for their commit already", retry_after=1)
            self._queue.append(waiting)
            self._bytes += len(body)
            if len(self._queue) == 1:
                self._wake.notify()
        return await waiting.answer

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._queue or self._stopping)
                if not self._queue:
                    return
            if not self._stopping:
                time.sleep(GATHER_SECONDS)
            with self._wake:
                group, self._queue = self._queue, []
                self._bytes = 0
            self._commit(group)

    def _commit(self, group: list[_Waiting]) -> None:
        outcomes: list[Outcome] | MonitorError
        try:
            outcomes = self._log.append([(waiting.frame, waiting.body) for waiting in group], self._clock())
        except MonitorError as refusal:
            outcomes = refusal
        self._meters.commits.labels(str(isinstance(outcomes, list)).lower()).inc()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for an answer any more
            group[0].answer.get_loop().call_soon_threadsafe(_answer, group, outcomes)


def _answer(group: list[_Waiting], outcomes: list[Outcome] | MonitorError) -> None:
    for index, waiting in enumerate(group):
        if waiting.answer.done():  # its client has gone
            continue
        if isinstance(outcomes, list):
            waiting.answer.set_result(outcomes[index])
        else:
            waiting.answer.set_exception(outcomes)
