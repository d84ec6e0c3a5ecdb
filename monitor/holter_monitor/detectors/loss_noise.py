"""A loss that has become noisier: same level, wider swings, as after a change of the data order."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import exp, log, sqrt
from typing import ClassVar

from holter_monitor.findings import Finding, Severity
from holter_monitor.stats import MAD_TO_SIGMA, RobustLevel, median
from holter_monitor.stream.steps import Point

EXCUSES = frozenset({"restart", "data_stage_change", "batch_size_change", "seq_len_change", "stage"})
BLOCK = 50


@dataclass(kw_only=True)
class LossNoise:
    """The mean distance from the level, in blocks of 50 values with outliers cut, against the blocks before.

    Rule: the log of that distance over the last 2, 4 or 7 blocks stands `deviations` errors and `growth` above the median of the blocks
    before, each of them above it. A spike or a shift moves the distance, too, but to one side only: then the mean move from value to value
    must have grown with it.
    The error counts how much blocks differ by nature.
    """

    kind: ClassVar[str] = "loss_noise"
    metric: ClassVar[str] = "loss"
    deviations: float = 5.5
    growth: float = 0.3
    """The least growth of log(noise): 0.3 is 35 %."""
    warmup_blocks: int = 8

    level: RobustLevel = field(init=False, default_factory=RobustLevel)
    block: list[float] = field(init=False, default_factory=list)
    moves: list[float] = field(init=False, default_factory=list)
    """Moves from value to value in the open block."""
    last: float | None = field(init=False, default=None)
    blocks: deque[float] = field(init=False, default_factory=lambda: deque(maxlen=48))
    """log of each block's mean distance."""
    paces: deque[float] = field(init=False, default_factory=lambda: deque(maxlen=48))
    """log of each block's mean move."""
    sides: deque[float] = field(init=False, default_factory=lambda: deque(maxlen=8))
    """For each block, how much its strays go to one side: 1.0 all up, 0.0 even."""
    starts: deque[int] = field(init=False, default_factory=lambda: deque(maxlen=48))
    first: int = field(init=False, default=0)
    onset: int | None = field(init=False, default=None)
    base: float = field(init=False, default=0.0)
    most: float = field(init=False, default=0.0)
    """The largest growth of the episode."""

    def update(self, point: Point) -> Finding | None:
        if point.words & EXCUSES:
            self._start_over()
        if point.value <= 0.0:
            return None
        height = log(point.value)
        if self.level.levels.ordered:
            if not self.block:
                self.first = point.step
            self.block.append(height - self.level.level)
            self.moves.append(abs(height - self.last) if self.last is not None else 0.0)
        self.last = height
        self.level.learn(height)
        if len(self.block) < BLOCK:
            return None
        strays = [abs(stray) for stray in self.block]
        self.blocks.append(_log_size(strays))
        self.sides.append(sum(self.block) / max(sum(strays), 1e-30))
        self.paces.append(_log_size(self.moves))
        self.starts.append(self.first)
        self.block, self.moves = [], []
        if self.sides[-1] > 0.8 and len(self.blocks) > 1 and self.blocks[-1] - median(list(self.blocks)[:-1]) > 2.0:
            self._start_over()  # the whole block stands far above: another model, or a spike that is not ours to say
            return None
        return self._judge(point)

    def _start_over(self) -> None:
        self.level.relevel()
        self.block, self.moves, self.last, self.onset = [], [], None, None
        self.blocks.clear()
        self.paces.clear()
        self.sides.clear()
        self.starts.clear()

    def _judge(self, point: Point) -> Finding | None:
        logs = list(self.blocks)
        if self.onset is not None:
            return self._follow(point, logs)
        for count in (2, 4, 7):
            before, last = logs[:-count], logs[-count:]
            if len(before) < self.warmup_blocks:
                return None
            usual, lately = median(before), median(before[-8:])
            spread = max(0.13, MAD_TO_SIGMA * median([abs(value - usual) for value in before]))
            drift = min(0.15, max(0.0, lately - usual - spread))  # a relative noise that grows as the loss falls
            base = max(usual, lately) + drift
            growth = (median(last) if count > 2 else min(last)) - base
            paces = list(self.paces)
            pace = min(paces[-count:]) - max(median(paces[:-count]), median(paces[:-count][-8:]))
            is_wider = growth > max(self.growth, self.deviations * spread / sqrt(count)) and min(last) - base > 0.3 * growth
            if is_wider and self._is_noise(count, growth, pace):
                self.onset, self.base, self.most = self.starts[-count], base, growth
                return self._say(point, growth, growth * sqrt(count) / spread)
        return None

    def _is_noise(self, count: int, growth: float, pace: float) -> bool:
        """Do the strays go to both sides, or have the moves grown, too? The fewer the blocks, the clearer it must be."""
        sides = list(self.sides)[-count:]
        if count == 2:
            return max(abs(side) for side in sides) < 0.6 or pace > 0.6 * growth
        weights = [exp(value) for value in list(self.blocks)[-count:]]
        lean = sum(side * weight for side, weight in zip(sides, weights, strict=True)) / sum(weights)
        return abs(lean) < 0.35 or pace > 0.25 * growth

    def _follow(self, point: Point, logs: list[float]) -> Finding | None:
        growth = sum(logs[-4:]) / len(logs[-4:]) - self.base
        self.most = max(self.most, growth)
        if growth > 0.15:
            return None
        finding = self._say(point, self.most, 0.0, is_over=True)
        self.onset = None
        return finding

    def _say(self, point: Point, growth: float, score: float, *, is_over: bool = False) -> Finding:
        assert self.onset is not None
        times = exp(growth)
        times_said = f"loss {'was' if is_over else 'has been'} {times:.2g} times as noisy as before"
        return Finding(
            kind=self.kind,
            severity=Severity.WARNING,
            onset_step=self.onset,
            detected_step=point.step,
            end_step=point.step if is_over else None,
            metric=self.metric,
            score=score,
            summary=f"{times_said} {f'from step {self.onset} to {point.step}' if is_over else f'since step {self.onset}'}",
            evidence={"times": times, "noise_before": exp(self.base), "window": [self.onset - 10 * BLOCK, point.step]},
        )


def _log_size(values: list[float]) -> float:
    """log of the mean, with what stands out cut at three medians."""
    cut = 3.0 * median(values)
    return log(max(sum(min(value, cut) for value in values) / len(values), 1e-9))
