"""A loss that rises slowly: no step stands out, but the run is worse than it was and getting worse. And one that climbs until it is no number."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from math import exp, isfinite, log
from typing import ClassVar

from holter_monitor.findings import Finding, Severity
from holter_monitor.stats import median, spread_of_steps
from holter_monitor.stream.steps import Point, Step

EXCUSES = frozenset({"restart", "data_stage_change", "batch_size_change", "seq_len_change", "stage"})
BLOCK = 32


@dataclass(kw_only=True)
class LossDivergence:
    """Judged against the best level that the run has had, so a rise too slow for any window is seen.

    Rule, on medians of 32 values of log(loss): the last two stand above the best by `blocks_above` times the spread between neighbours and by
    `rise`, and the last is the highest since, reached in more than one jump (that would be `loss_spike`'s). What comes down from a spike is no
    divergence; a loss back where it began is a new model.
    `critical` when the loss stands `critical_rise` above its best and still rises; or when it is not finite and its last finite value was the
    highest of 32 and `blown_up` above their level: then it climbed there (a learning rate), it was not struck (a kernel, a batch).
    """

    kind: ClassVar[str] = "loss_divergence"
    metric: ClassVar[str] = "loss"
    blocks_above: float = 6.0
    rise: float = 0.03
    """The least rise of log(loss) over the best."""
    critical_rise: float = 0.25
    blown_up: float = log(2.0)
    """What log(loss) has climbed when it ceases to be finite."""
    warmup_blocks: int = 6

    block: list[float] = field(init=False, default_factory=list)
    recent: deque[tuple[int, float]] = field(init=False, default_factory=lambda: deque(maxlen=32))
    """The last steps and their log(loss)."""
    blocks: deque[float] = field(init=False, default_factory=lambda: deque(maxlen=40))
    starts: deque[int] = field(init=False, default_factory=lambda: deque(maxlen=40))
    """The first step of each block, of the open one, too."""
    top: float | None = field(init=False, default=None)
    """The first block."""
    best: float | None = field(init=False, default=None)
    best_step: int = field(init=False, default=0)
    onset: int | None = field(init=False, default=None)
    severity: Severity = field(init=False, default=Severity.INFO)

    def update(self, point: Point) -> Finding | None:
        if point.words & EXCUSES:
            self._start_over()
        if point.value <= 0.0:
            return None
        if not self.block:
            self.starts.append(point.step)
        self.block.append(log(point.value))
        self.recent.append((point.step, self.block[-1]))
        if len(self.block) < BLOCK:
            return None
        middle = median(self.block)
        self.block = []
        if self.top is None:
            self.top = middle
        elif self.best is not None and middle > self.top - 0.2 * (self.top - self.best) and self.top - self.best > 0.5:
            self._start_over()
            return None
        self.blocks.append(middle)
        return self._judge(point)

    def observe(self, step: Step) -> Finding | None:
        value = step.mean("loss")
        if value is None or isfinite(value) or len(self.recent) < 16 or self.severity == Severity.CRITICAL:
            return None
        heights = [height for _, height in self.recent]
        base, last = median(heights[:-8]), heights[-1]
        if last - base < self.blown_up or last < max(heights):
            return None
        calm = [index for index, height in enumerate(heights) if height - base < 0.5 * self.blown_up]
        self.onset = self.recent[calm[-1] + 1][0]
        self.severity = Severity.CRITICAL
        return Finding(
            kind=self.kind,
            severity=Severity.CRITICAL,
            onset_step=self.onset,
            detected_step=step.number,
            metric=self.metric,
            score=last - base,
            summary=f"loss climbed from {exp(base):.4g} to {exp(min(last, 700.0)):.4g} since step {self.onset} and is not finite now",
            evidence={"now": exp(min(last, 700.0)), "best": exp(base), "blown_up": True, "window": [self.recent[0][0], step.number]},
        )

    def _start_over(self) -> None:
        self.blocks.clear()
        self.starts.clear()
        self.recent.clear()
        self.block = []
        self.best = self.onset = self.top = None

    def _judge(self, point: Point) -> Finding | None:
        means = list(self.blocks)
        if len(means) < self.warmup_blocks:
            return None
        spread = max(spread_of_steps(means[:-2]), 1e-5)
        if self.best is None:
            self.best, self.best_step = median(means[:3]), self.starts[0]
        above = min(means[-1], means[-2]) - self.best
        jump = max(after - before for before, after in pairwise(means[-10:]))
        is_rising = means[-1] > max(means[-8:-1]) - spread and means[-1] > median(means[-6:-1]) and jump < 0.75 * (means[-1] - self.best)
        if above < max(self.blocks_above * spread, self.rise):
            return self._calm(point, means, spread)
        if is_rising and self.onset is None:
            self.onset = self._began(means, spread)
            return self._say(point, means, spread, Severity.WARNING)
        if (
            is_rising
            and self.severity < Severity.CRITICAL
            and means[-1] - self.best > max(self.critical_rise, 2 * self.blocks_above * spread)
        ):
            return self._say(point, means, spread, Severity.CRITICAL)
        return None

    def _calm(self, point: Point, means: list[float], spread: float) -> Finding | None:
        assert self.best is not None
        finding = None
        if self.onset is not None and max(means[-2:]) - self.best < 0.5 * max(self.blocks_above * spread, self.rise):
            finding = self._say(point, means, spread, self.severity, is_over=True)
            self.onset, self.severity = None, Severity.INFO
        steady = max(means[-2:])
        if steady < self.best:
            self.best, self.best_step = steady, self.starts[-1]
        return finding

    def _began(self, means: list[float], spread: float) -> int:
        """The first block after the last one that was still near the best."""
        assert self.best is not None
        for index in range(len(means) - 1, -1, -1):
            if means[index] - self.best < 2.0 * spread:
                return self.starts[min(index + 1, len(means) - 1)]
        return self.starts[0]

    def _say(self, point: Point, means: list[float], spread: float, severity: Severity, *, is_over: bool = False) -> Finding:
        assert self.best is not None and self.onset is not None
        self.severity = severity
        now, best = exp(means[-1]), exp(self.best)
        return Finding(
            kind=self.kind,
            severity=severity,
            onset_step=self.onset,
            detected_step=point.step,
            end_step=point.step if is_over else None,
            metric=self.metric,
            score=(means[-1] - self.best) / spread,
            summary=f"loss {'is back at' if is_over else 'rises: now'} {now:.4g}, best was {best:.4g} around step {self.best_step} ({now / best - 1:+.1%})",
            evidence={
                "now": now,
                "best": best,
                "best_step": self.best_step,
                "spreads": (means[-1] - self.best) / spread,
                "window": [self.best_step, point.step],
            },
        )
