"""A gradient norm that fades away: dead units, a frozen part, a saturated softmax."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import exp, log
from typing import ClassVar

from holter_monitor.findings import Finding, Severity
from holter_monitor.stats import Blocks, spread_of_steps
from holter_monitor.stream.steps import Point

EXCUSES = frozenset({"restart", "data_stage_change", "batch_size_change", "seq_len_change", "lr_change", "stage"})
BLOCK = 24


@dataclass(kw_only=True)
class GradVanishing:
    """Rule, on means of 24 values of log(grad_norm): the last two stand a factor `factor` and `deviations` spreads below the lower quartile
    of the 28 before, so that coming back from an explosion is no fading. A norm that falls with the loss moves too slowly for that.
    """

    kind: ClassVar[str] = "grad_vanishing"
    metric: ClassVar[str] = "grad_norm"
    factor: float = 2.2
    deviations: float = 7.0
    warmup_blocks: int = 10

    blocks: Blocks = field(init=False, default_factory=lambda: Blocks(BLOCK, 30))
    starts: deque[int] = field(init=False, default_factory=lambda: deque(maxlen=30))
    first: int | None = field(init=False, default=None)
    onset: int | None = field(init=False, default=None)
    base: float = field(init=False, default=0.0)

    def update(self, point: Point) -> Finding | None:
        if point.words & EXCUSES:
            self.blocks.clear()
            self.starts.clear()
            self.first = self.onset = None
        if self.first is None:
            self.first = point.step
        if not self.blocks.push(log(max(point.value, 1e-30))):
            return None
        self.starts.append(self.first)
        self.first = None
        return self._judge(point, list(self.blocks.means))

    def _judge(self, point: Point, means: list[float]) -> Finding | None:
        if self.onset is not None:
            if min(means[-2:]) < self.base - 0.5 * log(self.factor):
                return None
            finding = self._say(point, means[-1], 0.0, is_over=True)
            self.onset = None
            return finding
        before, last = means[:-2], max(means[-2:])
        if len(before) < self.warmup_blocks:
            return None
        base = sorted(before)[len(before) // 4]
        spread = max(spread_of_steps(before), 0.02)
        if base - last < max(log(self.factor), self.deviations * spread):
            return None
        self.base = base
        steep = [index for index in range(len(means)) if means[index] < base - 0.25 * (base - last)]
        self.onset = self.starts[steep[0] if steep else -2]
        return self._say(point, last, (base - last) / spread)

    def _say(self, point: Point, now: float, score: float, *, is_over: bool = False) -> Finding:
        assert self.onset is not None
        said = "is back at" if is_over else "has faded to"
        return Finding(
            kind=self.kind,
            severity=Severity.WARNING,
            onset_step=self.onset,
            detected_step=point.step,
            end_step=point.step if is_over else None,
            metric=self.metric,
            score=score,
            summary=f"gradient norm {said} {exp(now):.3g} from {exp(self.base):.3g} since step {self.onset}",
            evidence={"now": exp(now), "before": exp(self.base), "window": [self.onset - 10 * BLOCK, point.step]},
        )
