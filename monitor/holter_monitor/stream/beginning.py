"""Where a run began, and whether it begins there again: by its step numbers, or by a loss that replays its own beginning."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from math import exp, inf, isfinite, log

from holter.frame import Event

from holter_monitor.stats import median
from holter_monitor.stream.steps import Step

GROWTH = 1.1
"""The learning curve is kept on a grid of log(steps): a point wherever the run has become this much longer."""
LEAST_FALL = 0.35
"""What log(loss) must have fallen before a return to the start can be told from noise."""
AT_START = 0.05
"""log(loss) of a model that knows nothing is a property of the task: a new one starts this near to the first."""
TOLERANCE = 0.1
"""How near to its own beginning the loss must stay from there, as a share of its fall."""
LEAST_RECORDS = 8
SHOWN = 0.2
"""How much of the fall the replay must have shown: a loss that is only high has lost much, but not begun anew."""
BLOCK = 8


@dataclass(slots=True)
class Replay:
    """A loss that stands where the run began, and what it has done since."""

    onset: int
    like: int = 0
    """Records that went as the beginning did, twice as fast or half as fast included."""
    unlike: int = 0


@dataclass(slots=True)
class Beginning:
    """Tells weights that were initialised anew from weights that were thrown off.

    A diverged loss often stands where the run began, too; only a new model falls from there as the first one did. So a loss that is back
    at its first value from one record to the next is followed, record by record, along the curve that the run itself took: steps since the return
    against steps since the start, between half and double the pace. It is a beginning when the curve has fallen by `SHOWN` at half the pace
    and four of five records, at least eight, went with it. A log that opens late has no beginning to compare with.
    """

    steps: list[int] = field(default_factory=list)
    """The first two steps that the run has had: where a training begins, and how far its records stand apart."""
    offsets: list[int] = field(default_factory=list)
    heights: list[float] = field(default_factory=list)
    """log(loss) at `offsets` steps after the start, each the mean since the one before."""
    passed: list[float] = field(default_factory=list)
    block: list[float] = field(default_factory=list)
    best: float = inf
    """The lowest median of 8 values of log(loss)."""
    bar: float = inf
    """The loss from which it may be a beginning."""
    last: float = inf
    """log(loss) one record before."""
    replay: Replay | None = None

    def goes_back(self, number: int) -> bool:
        """Takes a step's number in after a step back or a new attempt: has the run gone back to where the training itself began?"""
        self.replay = None
        return self._is_known and number <= self.steps[0]

    @property
    def _is_known(self) -> bool:
        return len(self.steps) == 2 and self.steps[0] <= 2 * (self.steps[1] - self.steps[0])

    def take(self, number: int, loss: float | None) -> int | None:
        """Takes a record in. The step from which on the loss replays its beginning, once that is certain."""
        if len(self.steps) < 2 and number not in self.steps:
            self.steps.append(number)
        if loss is None or not isfinite(loss) or loss <= 0.0:
            return None
        height = log(loss)
        before, self.last = self.last, height
        self._learn(number - self.steps[0], height)
        if self.replay is None:
            if loss < self.bar or abs(height - self.heights[0]) > AT_START or before > (self.heights[0] + self.best) / 2:
                return None
            self.replay = Replay(number)
        return self._follow(self.replay, number, height)

    def _learn(self, offset: int, height: float) -> None:
        self.block.append(height)
        if len(self.block) == BLOCK:
            self.best = min(self.best, median(self.block))
            self.block = []
            if self._is_known and self.heights[0] - self.best > LEAST_FALL:
                self.bar = exp(self.heights[0] - AT_START)
        if self.offsets and offset <= self.offsets[-1]:
            return
        self.passed.append(height)
        if not self.offsets or offset >= GROWTH * self.offsets[-1]:
            self.offsets.append(offset)
            self.heights.append(sum(self.passed) / len(self.passed))
            self.passed = []

    @property
    def _reach(self) -> float:
        return TOLERANCE * (self.heights[0] - self.best)

    def _follow(self, replay: Replay, number: int, height: float) -> int | None:
        since = number - replay.onset
        slow, fast = self._height(0.5 * since), self._height(2.0 * since)
        if fast - self._reach <= height <= slow + self._reach:
            replay.like += 1
        else:
            replay.unlike += 1
        if replay.unlike > 2 and 4 * replay.unlike > replay.like:  # thrown off, and coming back its own way
            self.replay = None
            return None
        has_shown = slow < self.heights[0] - SHOWN * (self.heights[0] - self.best)
        if not has_shown or replay.like < LEAST_RECORDS or replay.like < 4 * replay.unlike:
            return None
        self.replay, self.best, self.bar, self.block = None, inf, inf, []
        return replay.onset

    def _height(self, offset: float) -> float:
        """The curve at so many steps after the start."""
        after = bisect_right(self.offsets, offset)
        if after == len(self.offsets):
            return self.heights[-1]
        share = (offset - self.offsets[after - 1]) / (self.offsets[after] - self.offsets[after - 1])
        return self.heights[after - 1] + share * (self.heights[after] - self.heights[after - 1])


def replay_of(step: Step, since: int) -> Event:
    """The restart that nobody declared, as it is hung on the step at which it became certain."""
    return {
        "event": "restart",
        "rank": None,
        "step": step.number,
        "time_ns": int(step.time * 1e9),
        "attrs": {"implied": True, "since": since},
    }


def replayed_since(step: Step) -> int | None:
    """The step from which on the loss replays the run's beginning, if that became certain at this step."""
    for event in step.events:
        attrs = event.get("attrs") or {}
        since = attrs.get("since")
        if event["event"] == "restart" and attrs.get("implied") is True and isinstance(since, int):
            return since
    return None
