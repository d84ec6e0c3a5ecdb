"""What a loss does once it stands up: a rise that is followed to its end, a step that may turn out to have been one, and where the level stood before."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from math import inf

from holter_monitor.findings import Severity

WAKE_STEPS = 5
"""So long a wake is waited for."""


@dataclass(slots=True, kw_only=True)
class Rise:
    """A spike in progress."""

    onset: int
    level: float
    """log loss of the calm before."""
    scale: float
    """Sigmas of the calm before."""
    tail: float
    peak: float
    steps: int = 0
    low: int = 0
    """Steps in a row that were back near the level."""
    crest: float = -inf
    """The highest median of 16 steps: what it has fallen from, if it has."""
    last_up: int = 0
    """How many steps of the rise had passed at the last one that stood up."""
    said: bool = False
    severity: Severity = Severity.INFO
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=16))


@dataclass(slots=True)
class Trail:
    """Where the level stood along the run, at most `most` places of it: a run that goes back is judged by what it was there."""

    steps: list[int] = field(default_factory=list)
    heights: list[float] = field(default_factory=list)
    every: int = 16
    most: int = 512

    def keep(self, step: int, height: float) -> None:
        self.steps.append(step)
        self.heights.append(height)
        if len(self.steps) > self.most:
            del self.steps[1::2], self.heights[1::2]
            self.every *= 2

    def wants(self, step: int) -> bool:
        return not self.steps or step >= self.steps[-1] + self.every

    def rewind(self, step: int) -> float | None:
        """The level at that step the first time; what came after it is forgotten. None: nothing is known of it."""
        kept = bisect_right(self.steps, step)
        del self.steps[kept:], self.heights[kept:]
        return self.heights[-1] if self.heights else None


@dataclass(slots=True)
class Front:
    """A step that stood up: a spike, if what follows is a wake. Level and tail are those of the calm before."""

    step: int
    sigmas: float
    level: float
    tail: float
    heights: list[float]
    wake: float = 0.0
    """Tails of the steps since, added up; a further outlier counts as 3."""

    def follow(self, height: float) -> bool:
        """Takes the next step in; is it part of a wake?"""
        tails = (height - self.level) / self.tail
        self.heights.append(height)
        self.wake += min(tails, 3.0)
        return tails > 1.0 and len(self.heights) <= 1 + WAKE_STEPS
