"""The floor of a series in blocks: what is left of a memory when garbage has been collected."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import inf

import numpy as np
from numpy.typing import NDArray

from holter_monitor.stream.steps import Step


@dataclass(kw_only=True)
class Floors:
    """The floor of each rank's memory in blocks of records: what is left when garbage has been collected. State: 88 bytes a rank."""

    block: int = 100
    kept: int = 14
    records: int = 0
    lows: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    """Minima of the eighths of the current block; the second lowest is the block's floor, so no single low reading decides."""
    floors: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    """(blocks, ranks), oldest first."""
    starts: deque[int] = field(default_factory=lambda: deque(maxlen=14))
    one: float = inf
    """The current eighth's minimum, for a single rank."""
    step: int = -1
    time: float = 0.0
    steps: float = 0.0
    """Steps gone forward since the beginning: records may stand at any distance, and a restart repeats some."""
    seconds: float = 0.0
    """Time that has passed; it stays at 0 where the records have no times."""
    marks: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=14))
    """`(steps, seconds)` at the second eighth of each block: there a memory that grows has the block's floor."""
    mark: tuple[float, float] = (0.0, 0.0)
    """That of the block in progress."""

    def take(self, step: Step, metric: str) -> bool:
        """Takes a step in that logged the metric; True when it completed a block."""
        if len(step.ranks) == 1:
            value = step.mean(metric) or 0.0
            return self.push_one(value, step.number, step.time) if 0.0 < value < 1e18 else False
        column = step.column(metric)
        if column is None:
            return False
        values, present = column
        return self.push(np.where(present & (values > 0.0) & (values < 1e18), values, np.nan), step.number, step.time)

    def growth(self, blocks: int) -> NDArray[np.float64]:
        """By how much each rank's floor has risen over the last `blocks` blocks, or as many as there are."""
        kept = self.floors[-blocks:].astype(np.float64)
        risen: NDArray[np.float64] = kept[-1] - kept[0] if len(kept) else np.zeros(self.floors.shape[1])
        return risen

    def spans(self, blocks: int, *, by_time: bool) -> NDArray[np.float64]:
        """How far each of the last `blocks` blocks stands from the one before, in steps or seconds; all 1 where that is not known."""
        marks = np.array(list(self.marks)[-blocks:])[:, int(by_time)] if self.marks else np.zeros(0)
        spans = np.diff(marks)
        return spans if len(spans) and (spans > 0.0).all() else np.ones(len(spans))

    @property
    def since(self) -> tuple[float, float]:
        """`(steps, seconds)` since the newest block's floor."""
        return (self.steps - self.marks[-1][0], self.seconds - self.marks[-1][1]) if self.marks else (0.0, 0.0)

    def push(self, values: NDArray[np.float64], step: int, time: float = 0.0) -> bool:
        """Takes a record in; True when it completed a block."""
        self._pass(step, time)
        if self.lows.shape[1:] != values.shape:
            self.lows = np.full((8, len(values)), np.inf, np.float32)
            self.floors, self.records = np.empty((0, len(values)), np.float32), 0
            self.starts.clear()
            self.marks.clear()
        if self.records % self.block == 0:
            self.starts.append(step)
            self.lows[:] = np.inf
        eighth = self.lows[(self.records % self.block) * 8 // self.block]
        np.fmin(eighth, values, out=eighth, casting="same_kind")
        return self._next()

    def push_one(self, value: float, step: int, time: float = 0.0) -> bool:
        """`push` for a series of one rank, in plain numbers: a log has millions of records."""
        if self.lows.shape[1:] != (1,) or self.records % self.block == 0:
            self.one = inf
            return self.push(np.array([value]), step, time)
        self._pass(step, time)
        place = self.records % self.block
        if place * 8 // self.block != (place - 1) * 8 // self.block:
            self.one = inf
        if value < self.one:
            self.one = value
            eighth = place * 8 // self.block
            self.lows[eighth, 0] = min(value, float(self.lows[eighth, 0]))
        return self._next()

    def _pass(self, step: int, time: float) -> None:
        if step > self.step:
            self.steps += step - self.step if self.step >= 0 else 1
        self.step = step
        if 0.0 < self.time < time < self.time + 1e5:
            self.seconds += time - self.time
        self.time = time

    def _next(self) -> bool:
        if self.records % self.block == self.block // 8:
            self.mark = (self.steps, self.seconds)
        self.records += 1
        if self.records % self.block:
            return False
        low, second = np.partition(self.lows, 1, axis=0)[:2]
        floor = np.where(np.isfinite(second), second, np.where(np.isfinite(low), low, np.float32(np.nan)))
        self.floors = np.vstack([self.floors[-(self.kept - 1) :], floor])
        self.marks.append(self.mark)
        return True
