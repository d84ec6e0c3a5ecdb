"""The dead-man's switch: a synthetic run falls ill every half minute, and its message must arrive. Only then is the outside watch told
that all is well; when it is no longer told, it pages from outside.

A canary passes the event loop, the group commit, the frame log, the engine with its real detectors, alerting, the outbox and a worker: whatever
of these stands still, the heartbeat stops within a minute.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar
from uuid import uuid4

import httpx
import numpy as np
from holter.frame import Column, Frame, encode

from holter_monitor.notify.limits import Limits
from holter_monitor.notify.notice import Notice

logger = logging.getLogger(__name__)
STEPS = 20
"""Of one canary: the first is ill, the others are well, so that the incident is over at once."""


@dataclass(frozen=True)
class Perch:
    """The canary's receiver: it only notes which canary has come."""

    kind: ClassVar[str] = "canary"
    limits: ClassVar[Limits] = Limits(per_second=100.0, burst=100)
    arrived: set[int] = field(default_factory=set, compare=False)
    news: threading.Condition = field(default_factory=threading.Condition, compare=False)

    def send(self, notice: Notice, http: httpx.Client) -> str | None:
        with self.news:
            self.arrived.add(notice.onset_step)
            self.news.notify_all()
        return None

    def wait(self, step: int, timeout: float) -> bool:
        with self.news:
            came = self.news.wait_for(lambda: step in self.arrived, timeout)
            self.arrived.clear()
        return came


@dataclass(kw_only=True)
class Canary:
    """Sends canaries, and pings `url` (if there is one) after each that has arrived."""

    run: str
    submit: Callable[[Frame, bytes], None]
    """Puts a frame where agents' frames go and returns when it is durable, or raises."""
    sweep: Callable[[], None]
    """Clears away what earlier canaries left."""
    perch: Perch
    http: httpx.Client
    url: str | None = None
    every: float = 30.0
    ping_every: float = 30.0
    """The watch is asked for at least so long apart; the canaries go on between."""
    patience: float = 30.0
    boot: str = field(default_factory=lambda: uuid4().hex)
    sent: int = 0
    problem: str | None = "no canary has come through yet"
    """What is wrong with the way through the collector; None if nothing is."""
    _last: int = 0
    _ping_due: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._work, name="holter-canary", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)

    def fly(self) -> bool:
        """One canary: whether it came through, and the outside watch knows."""
        self._last = max(int(time.time()), self._last + 1)  # by the clock: later lives of the collector go on behind earlier ones
        step = self._last * STEPS
        self.sent += 1
        try:
            self.submit(*self._frame(step))
        except Exception as error:  # noqa: BLE001 - whatever keeps a frame out is what this is here to notice
            return self._failed(f"the canary was not taken in: {type(error).__name__}: {error}")
        if not self.perch.wait(step, self.patience):
            return self._failed(f"the canary of step {step} has not come through in {self.patience:.0f} s")
        self.problem = None
        self.sweep()
        return self._ping()

    def _ping(self) -> bool:
        now = time.monotonic()
        if self.url is None or now < self._ping_due:
            return True
        self._ping_due = now + self.ping_every - self.every / 2  # the canary nearest to it
        try:
            answer = self.http.get(self.url)
        except Exception as error:  # noqa: BLE001 - the watch notices by itself that it hears nothing
            logger.warning("the outside watch cannot be reached: %s", type(error).__name__)
            return False
        if not answer.is_success:
            logger.warning("the outside watch answers %d", answer.status_code)
        return answer.is_success

    def _failed(self, problem: str) -> bool:
        logger.error("%s; the outside watch is not told that all is well", problem)
        self.problem = problem
        return False

    def _frame(self, step: int) -> tuple[Frame, bytes]:
        losses = np.ones(STEPS)
        losses[0] = np.nan
        now = time.time_ns()
        frame = Frame(
            run=self.run,
            attempt=self.boot,  # a clock that was set back makes lower steps of a new life a rewind, not a repetition
            node="collector",
            boot=self.boot,
            seq=self.sent,
            sent_ns=now,
            rank=np.zeros(STEPS, np.int32),
            step=np.arange(step, step + STEPS, dtype=np.int64),
            time_ns=now + np.arange(STEPS, dtype=np.int64),
            metrics={"loss": Column(losses)},
        )
        return frame, encode(frame)

    def _work(self) -> None:
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                self.fly()
            except Exception:
                logger.exception("the canary")
            self._stop.wait(max(1.0, self.every - (time.monotonic() - started)))
