"""The small statistics that detectors are built of: streaming, robust, bounded. Each costs about a microsecond a value."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import log, sqrt

MAD_TO_SIGMA = 1.4826
"""A normal distribution's standard deviation in units of its median absolute deviation."""
IQR_TO_SIGMA = 0.7413
"""The same in units of the distance between its quartiles."""
Q985_TO_SIGMA = 1 / 2.17
"""The same in units of its 98.5th percentile."""
SCALE_FLOOR = 1e-6


@dataclass(slots=True)
class SortedWindow:
    """The last `size` values, in order of time and in order of size: any quantile at once."""

    size: int
    values: deque[float] = field(default_factory=deque)
    ordered: list[float] = field(default_factory=list, metadata={"derived": True})

    def derive(self) -> None:
        """What a snapshot leaves out."""
        self.ordered = sorted(self.values)

    def push(self, value: float) -> None:
        # The innermost loop of a scan: some seventeen calls a record, hence the local names.
        values, ordered = self.values, self.ordered
        if len(values) >= self.size:
            del ordered[bisect_left(ordered, values.popleft())]
        values.append(value)
        insort(ordered, value)

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

    The level is the median of the last `level_size` values. What it strays is known from the last `scale_size` values, each measured from
    the level that it met, so that a trend hardly counts as spread: `sigma` from the quartiles, `tail` from the outer quantiles.
    A young series changes fast: until it is long enough, a quarter of its length makes the level and half of it the spread.
    """

    level_size: int = 64
    scale_size: int = 256
    levels: SortedWindow = field(default_factory=lambda: SortedWindow(8))
    strays: SortedWindow = field(default_factory=lambda: SortedWindow(32))
    count: int = 0
    """How many values were learned since the last `clear`."""

    def knows(self, least: int) -> bool:
        """Is there a level, and a spread learned from `least` values?"""
        return self.count >= least and len(self.levels.ordered) >= 8

    @property
    def level(self) -> float:
        """Raises IndexError while nothing is known."""
        ordered = self.levels.ordered
        return ordered[len(ordered) // 2]

    @property
    def sigma(self) -> float:
        """The spread of the middle half, in standard deviations of a normal series; `SCALE_FLOOR` before the second value."""
        return self.scales()[0]

    @property
    def tail(self) -> float:
        """The spread as the upward tail has it (98.5 % of the strays are below 2.17 of these), at least `sigma`.

        Where the tail below is shorter, their mean counts: a few outliers upward do not hide the next.
        """
        return self.scales()[1]

    def scales(self) -> tuple[float, float]:
        """`sigma` and `tail`."""
        ordered = self.strays.ordered
        count = len(ordered)
        if not count:
            return SCALE_FLOOR, SCALE_FLOOR
        sigma = IQR_TO_SIGMA * (ordered[3 * count // 4] - ordered[count // 4])
        sigma = max(sigma, SCALE_FLOOR)
        up, down = ordered[197 * count // 200], -ordered[3 * count // 200]
        tail = Q985_TO_SIGMA * (up if up < down else (up + down) / 2)
        return sigma, tail if tail > sigma else sigma

    def learn(self, value: float) -> None:
        levels, strays = self.levels, self.strays
        ordered = levels.ordered
        if ordered:
            strays.push(value - ordered[len(ordered) // 2])
        levels.push(value)
        self.count += 1
        if strays.size < self.scale_size and self.count % 4 == 0:
            levels.size = min(self.level_size, max(8, self.count // 4))
            strays.size = min(self.scale_size, max(32, self.count // 2))

    def relevel(self, height: float | None = None) -> None:
        """The series stands elsewhere now (where, if it is known); it strays as before."""
        self.levels.clear()
        if height is not None:
            for _ in range(8):
                self.levels.push(height)

    def clear(self) -> None:
        self.levels.clear()
        self.strays.clear()
        self.levels.size, self.strays.size, self.count = 8, 32, 0


@dataclass(slots=True)
class Drift:
    """Does the mean of the last few deviations stand out among such means? A fading mean, judged by how far its own past values strayed.

    Autocorrelation, which makes means stray more than a textbook's sqrt(n) allows, is learned with it.
    """

    memory: int
    """About how many values the mean remembers."""
    bound: float = 6.0
    """A single deviation counts at most this much."""
    mean: float = 0.0
    seen: int = 0
    past: SortedWindow = field(default_factory=lambda: SortedWindow(48))
    spread: float = 0.0
    """Of the means, as the past ones have it; 0.0 before the first."""

    def push(self, deviations: float) -> float:
        """The mean in units of its own spread (at least that of white noise), after taking `deviations` in."""
        memory, bound = self.memory, self.bound
        bounded = deviations if -bound <= deviations <= bound else max(-bound, min(bound, deviations))
        self.mean = mean = self.mean + (bounded - self.mean) / memory
        self.seen += 1
        if self.seen % memory == 0:
            self.past.push(abs(mean))
            self.spread = self._spread()
        return mean / (self.spread or self._spread())

    def _spread(self) -> float:
        white = 1.0 / sqrt(2 * self.memory - 1)
        return max(white, MAD_TO_SIGMA * self.past.median) if len(self.past) >= 8 else 2.0 * white

    def reset(self) -> None:
        self.mean = 0.0


@dataclass(slots=True)
class Blocks:
    """Means of `size` values each; the last `keep` of them."""

    size: int
    keep: int
    means: deque[float] = field(default_factory=deque)
    total: float = 0.0
    count: int = 0

    def push(self, value: float) -> bool:
        """True when a block has just become complete: its mean is `means[-1]`."""
        self.total += value
        self.count += 1
        if self.count < self.size:
            return False
        if len(self.means) >= self.keep:
            self.means.popleft()
        self.means.append(self.total / self.count)
        self.total, self.count = 0.0, 0
        return True

    def clear(self) -> None:
        self.means.clear()
        self.total, self.count = 0.0, 0


def median(values: Iterable[float]) -> float:
    """The upper median: no mean of two. Raises IndexError for nothing."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def spread_of_steps(values: Sequence[float]) -> float:
    """The standard deviation of single values, from how much neighbours differ: a slow trend does not count. 0.0 for fewer than three."""
    if len(values) < 3:
        return 0.0
    return MAD_TO_SIGMA / sqrt(2.0) * median([abs(after - before) for before, after in pairwise(values)])


def log_or_none(value: float | None) -> float | None:
    """The logarithm of a positive finite value; None for anything else."""
    if value is None or not 0.0 < value < float("inf"):
        return None
    return log(value)
