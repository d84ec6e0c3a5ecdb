"""What a loss does once it stands up: a rise that is followed to its end, and a step that may turn out to have been one."""

from __future__ import annotations

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
