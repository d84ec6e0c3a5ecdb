"""The small statistics that detectors are built of: streaming, robust, bounded. Each costs about a microsecond a value."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, field

MAD_TO_SIGMA = 1.4826
"""A normal distribution's standard deviation in units of its median absolute deviation."""


@dataclass(slots=True)
class SortedWindow:
    """The last `size` values, in order of time and in order of size: any quantile at once."""

    size: int
    values: deque[float] = field(default_factory=deque)
    ordered: list[float] = field(default_factory=list)

    def push(self, value: float) -> None:
        if len(self.values) >= self.size:
            del self.ordered[bisect_left(self.ordered, self.values.popleft())]
        self.values.append(value)
        insort(self.ordered, value)

    def quantile(self, share: float) -> float:
        """The value below which `share` of the window lies (nearest rank). Raises IndexError when empty."""
        return self.ordered[min(len(self.ordered) - 1, int(share * len(self.ordered)))]

    @property
    def median(self) -> float:
        return self.ordered[len(self.ordered) // 2]

    def clear(self) -> None:
        self.values.clear()
        self.ordered.clear()

    def __len__(self) -> int:
        return len(self.values)


@dataclass(slots=True)
class RobustLevel:
    """Where a series stands and how far it strays from there, neither moved by a few outliers.

    The level is the median of the last `level_size` values; the scale is taken from the absolute deviations of the last `scale_size`
    values from the level each met, so a trend inside the window does not count as spread.
    """

    level_size: int = 32
    scale_size: int = 128
    levels: SortedWindow = field(default_factory=lambda: SortedWindow(32))
    strays: SortedWindow = field(default_factory=lambda: SortedWindow(128))

    def __post_init__(self) -> None:
        self.levels.size, self.strays.size = self.level_size, self.scale_size

    @property
    def count(self) -> int:
        return len(self.strays)

    @property
    def level(self) -> float:
        return self.levels.median

    @property
    def scale(self) -> float:
        """In standard deviations of a normal series; 0.0 before the second value."""
        return MAD_TO_SIGMA * self.strays.median if len(self.strays) else 0.0

    def learn(self, value: float) -> None:
        if len(self.levels):
            self.strays.push(abs(value - self.levels.median))
        self.levels.push(value)

    def clear(self) -> None:
        self.levels.clear()
        self.strays.clear()
