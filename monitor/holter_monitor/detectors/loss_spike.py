"""A loss that jumps: isolated, recovering or staying up, told apart as the following steps come in."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp, log
from typing import ClassVar

from holter_monitor.findings import Finding, Severity
from holter_monitor.stats import RobustLevel
from holter_monitor.steps import Point

EXCUSES = frozenset({"data_stage_change", "batch_size_change", "seq_len_change", "lr_change", "stage"})


@dataclass(kw_only=True)
class LossSpike:
    """A spike is kept out of the level, so what follows is judged by the calm before it."""

    kind: ClassVar[str] = "loss_spike"
    metric: ClassVar[str] = "loss"
    threshold: float = 8.0
    """Deviations above the level that count as a spike."""
    rise: float = 0.04
    """The least relative rise: below it nobody acts."""
    warmup_steps: int = 64
    """Steps learned before judging: an early loss falls too fast to have a level."""
    patience_steps: int = 100
    """Steps a spike may take to come back before it counts as staying up."""
    level: RobustLevel = field(init=False, default_factory=RobustLevel)
    onset: int | None = field(init=False, default=None)
    peak: float = field(init=False, default=0.0)
    steps_up: int = field(init=False, default=0)

    def update(self, point: Point) -> Finding | None:
        if point.words & EXCUSES:
            self.level.clear()
            self.onset = None
        if point.value <= 0.0:
            return None
        height = log(point.value)
        if self.level.count < self.warmup_steps:
            self.level.learn(height)
            return None
        stands = height - self.level.level
        score = stands / max(self.level.scale, 1e-6)
        is_up = score > self.threshold and stands > self.rise
        if self.onset is None:
            if is_up:
                return self._begin(point, score)
            self.level.learn(height)
            return None
        return self._follow(point, score, is_up=is_up)

    def _begin(self, point: Point, score: float) -> Finding:
        self.onset, self.peak, self.steps_up = point.step, point.value, 1
        return self._finding(point, score, Severity.WARNING, "rising")

    def _follow(self, point: Point, score: float, *, is_up: bool) -> Finding | None:
        self.steps_up += 1
        self.peak = max(self.peak, point.value)
        if not is_up:
            shape = "isolated" if self.steps_up <= 3 else "recovering"
            finding = self._finding(point, score, Severity.WARNING, shape, end_step=point.step)
            self.onset = None
            self.level.learn(log(point.value))
            return finding
        if self.steps_up == self.patience_steps:
            finding = self._finding(point, score, Severity.CRITICAL, "shifting")
            self.level.clear()
            self.onset = None
            return finding
        return None

    def _finding(self, point: Point, score: float, severity: Severity, shape: str, *, end_step: int | None = None) -> Finding:
        onset = point.step if self.onset is None else self.onset
        level = exp(self.level.level)
        return Finding(
            kind=self.kind,
            severity=severity,
            onset_step=onset,
            detected_step=point.step,
            end_step=end_step,
            metric=self.metric,
            score=score,
            summary=f"loss rose to {self.peak:.4g} from {level:.4g} at step {onset} ({self.peak / level - 1:+.0%}): {shape}",
            evidence={
                "shape": shape,
                "peak": self.peak,
                "level": level,
                "deviations": score,
                "window": [onset - 50, point.step],
            },
        )
