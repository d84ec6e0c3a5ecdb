"""A gradient norm that grows and stays large: more than the heavy tail that gradients have anyway."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import exp, log
from typing import ClassVar

from holter_monitor.findings import Finding, Severity
from holter_monitor.stats import RobustLevel, median
from holter_monitor.stream.steps import Point

EXCUSES = frozenset({"restart", "data_stage_change", "batch_size_change", "seq_len_change", "lr_change", "stage"})


@dataclass(kw_only=True)
class GradExplosion:
    """Single large gradients are normal and belong to nobody's pager; a run of them is an explosion.

    Rule, on log(grad_norm): `run` of the last 8 values stand `tails` tails and a factor `factor` above the level. `critical`: the median of the
    last 16 stands `critical_factor` above it.
    """

    kind: ClassVar[str] = "grad_explosion"
    metric: ClassVar[str] = "grad_norm"
    tails: float = 3.0
    factor: float = 2.0
    run: int = 5
    critical_factor: float = 30.0
    warmup_steps: int = 128
    patience_steps: int = 400
    """Steps after which a larger norm is the new level."""

    level: RobustLevel = field(init=False, default_factory=RobustLevel)
    recent: deque[tuple[int, float]] = field(init=False, default_factory=lambda: deque(maxlen=16))
    onset: int | None = field(init=False, default=None)
    peak: float = field(init=False, default=0.0)
    steps_up: int = field(init=False, default=0)
    low: int = field(init=False, default=0)
    severity: Severity = field(init=False, default=Severity.INFO)

    def update(self, point: Point) -> Finding | None:
        if point.words & EXCUSES:
            self._start_over()
        if point.value <= 0.0:
            return None
        size = log(point.value)
        if not self.level.knows(self.warmup_steps):
            self.level.learn(size)
            return None
        self.recent.append((point.step, size))
        if self.onset is not None:
            return self._follow(point, size)
        bar = self.level.level + max(self.tails * self.level.tail, log(self.factor))
        up = [step for step, value in list(self.recent)[-8:] if value > bar]
        if len(up) >= self.run:
            self.onset, self.steps_up, self.low = up[0], 0, 0
            self.peak = max(value for _, value in self.recent)
            return self._say(point, Severity.WARNING)
        self.level.learn(min(size, bar))
        return None

    def _start_over(self) -> None:
        self.level.relevel()
        self.recent.clear()
        self.onset = None

    def _follow(self, point: Point, size: float) -> Finding | None:
        self.steps_up += 1
        self.peak = max(self.peak, size)
        self.low = self.low + 1 if size < self.level.level + max(2.0 * self.level.tail, 0.5 * log(self.factor)) else 0
        middle = median([value for _, value in self.recent])
        if self.low >= 8 or self.steps_up >= self.patience_steps:
            finding = self._say(point, self.severity, is_over=True)
            if self.low < 8:
                self.level.relevel()
            self.onset = None
            self.recent.clear()
            return finding
        if self.severity < Severity.CRITICAL and self.steps_up >= 16 and middle - self.level.level > log(self.critical_factor):
            return self._say(point, Severity.CRITICAL)
        return None

    def _say(self, point: Point, severity: Severity, *, is_over: bool = False) -> Finding:
        assert self.onset is not None
        self.severity = severity
        times = exp(min(700.0, self.peak - self.level.level))
        return Finding(
            kind=self.kind,
            severity=severity,
            onset_step=self.onset,
            detected_step=point.step,
            end_step=point.step if is_over else None,
            metric=self.metric,
            score=(self.peak - self.level.level) / self.level.tail,
            summary=f"gradient norm up to {times:.3g} times its level {exp(self.level.level):.3g} since step {self.onset}{', over' if is_over else ''}",
            evidence={"times": times, "level": exp(self.level.level), "window": [self.onset - 50, point.step]},
        )
