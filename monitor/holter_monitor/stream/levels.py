"""The level of a run's pace in blocks: what tells a fall from a slope, and both from stalls."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from math import exp, inf, log
from statistics import median

import numpy as np
from numpy.typing import NDArray

from holter_monitor.stats import MAD_TO_SIGMA
from holter_monitor.stream.pace import Beat


@dataclass(kw_only=True)
class Levels:
    """The level in blocks: medians of 20 records, so that no single stall can move one, and the best level that the run has held."""

    size: int = 20
    records: list[float] = field(default_factory=list)
    medians: deque[float] = field(default_factory=lambda: deque(maxlen=128))
    """Logarithms of the blocks' costs."""
    starts: deque[int] = field(default_factory=lambda: deque(maxlen=128))
    """The first step of each block."""
    best: float | None = None
    """The logarithm of the run's own base: the level of its first five blocks, or a later one at least 1 % below it."""
    first: int = -1

    def push(self, beat: Beat) -> bool:
        """Takes a record in; True when it completed a block."""
        if not self.records:
            self.first = beat.step
        self.records.append(log(beat.cost))
        if len(self.records) < self.size:
            return False
        self.medians.append(median(self.records))
        self.starts.append(self.first)
        self.records.clear()
        return True

    @property
    def held(self) -> float:
        """The level of the last five blocks (logarithm); infinite before there are so many."""
        return median(list(self.medians)[-5:]) if len(self.medians) >= 5 else inf

    def settle(self) -> None:
        """Lets the base follow a run that became faster. Not called while a finding is open: its end is judged against one base."""
        held = self.held
        if held < inf and (self.best is None or held < self.best - 0.01):
            self.best = held

    def take_base(self) -> None:
        """Makes the present level the base, better or not."""
        self.best = self.held

    def clear(self) -> None:
        self.records.clear()
        self.medians.clear()
        self.starts.clear()
        self.best = None

    @property
    def base(self) -> float:
        """The cost of a unit of work at the run's best; 0.0 until it is known."""
        return 0.0 if self.best is None else exp(self.best)

    @property
    def rise(self) -> float:
        """How far the last two blocks both stand above the base (logarithm)."""
        return 0.0 if self.best is None or len(self.medians) < 6 else min(self.medians[-1], self.medians[-2]) - self.best

    def noise(self, scale: float) -> float:
        """A block's own spread around its neighbours, never less than what `scale` (a record's spread) explains."""
        blocks = list(self.medians)[-31:-1]
        steps = sorted(abs(b - a) for a, b in pairwise(blocks))
        return max(MAD_TO_SIGMA * steps[len(steps) // 2] if steps else 0.0, 0.4 * scale)

    def is_slope(self) -> bool:
        """Whether a rise that goes on from some block fits the kept blocks better than one rise at some block does (least squares)."""
        y = np.array(self.medians)
        y -= y.mean()
        t = np.arange(float(len(y)))
        at = t[2:-1, None]
        return _explained(np.maximum(t - at + 1.0, 0.0), y) > _explained((t >= at).astype(float), y)

    def jump(self) -> tuple[float, int]:
        """The largest sudden rise between neighbouring pairs of blocks, and the place of the first block after it."""
        blocks = list(self.medians)
        best, at = 0.0, len(blocks) - 1
        for i in range(2, len(blocks) - 1):
            rise = min(blocks[i], blocks[i + 1]) - max(blocks[i - 1], blocks[i - 2])
            if rise > best:
                best, at = rise, i
        return best, at


def _explained(models: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """How much of the variation of `y` (mean 0) the best of these rising shapes (a row each) accounts for."""
    models = models - models.mean(axis=1, keepdims=True)
    along = models @ y
    found: NDArray[np.float64] = np.maximum(along, 0.0) ** 2 / np.maximum((models**2).sum(axis=1), 1e-12)
    return float(found.max())
