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

    def take(self, step: Step, metric: str) -> bool:
        """Takes a step in that logged the metric; True when it completed a block."""
        if len(step.ranks) == 1:
            value = step.mean(metric) or 0.0
            return self.push_one(value, step.number) if 0.0 < value < 1e18 else False
        column = step.column(metric)
        if column is None:
            return False
        values, present = column
        return self.push(np.where(present & (values > 0.0) & (values < 1e18), values, np.nan), step.number)

    def growth(self, blocks: int) -> NDArray[np.float64]:
        """By how much each rank's floor has risen over the last `blocks` blocks, or as many as there are."""
        kept = self.floors[-blocks:].astype(np.float64)
        risen: NDArray[np.float64] = kept[-1] - kept[0] if len(kept) else np.zeros(self.floors.shape[1])
        return risen

    def push(self, values: NDArray[np.float64], step: int) -> bool:
        """Takes a record in; True when it completed a block."""
        if self.lows.shape[1:] != values.shape:
            self.lows = np.full((8, len(values)), np.inf, np.float32)
            self.floors, self.records = np.empty((0, len(values)), np.float32), 0
            self.starts.clear()
        if self.records % self.block == 0:
            self.starts.append(step)
            self.lows[:] = np.inf
        eighth = self.lows[(self.records % self.block) * 8 // self.block]
        np.fmin(eighth, values, out=eighth, casting="same_kind")
        return self._next()

    def push_one(self, value: float, step: int) -> bool:
        """`push` for a series of one rank, in plain numbers: a log has millions of records."""
        if self.lows.shape[1:] != (1,) or self.records % self.block == 0:
            self.one = inf
            return self.push(np.array([value]), step)
        place = self.records % self.block
        if place * 8 // self.block != (place - 1) * 8 // self.block:
            self.one = inf
        if value < self.one:
            self.one = value
            eighth = place * 8 // self.block
            self.lows[eighth, 0] = min(value, float(self.lows[eighth, 0]))
        return self._next()

    @property
    def block_steps(self) -> float:
        """Steps that a block covers; a host is sampled by time, not by step."""
        return (self.starts[-1] - self.starts[0]) / max(1, len(self.starts) - 1)

    def _next(self) -> bool:
        self.records += 1
        if self.records % self.block:
            return False
        low, second = np.partition(self.lows, 1, axis=0)[:2]
        floor = np.where(np.isfinite(second), second, np.where(np.isfinite(low), low, np.float32(np.nan)))
        self.floors = np.vstack([self.floors[-(self.kept - 1) :], floor])
        return True
