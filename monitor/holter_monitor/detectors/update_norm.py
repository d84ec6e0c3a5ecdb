"""The size of the optimiser's update, where it is logged, of the whole model or of single layers: one that explodes, fades or is dead."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log
from typing import ClassVar

from holter_monitor.findings import Finding, Severity
from holter_monitor.stats import RobustLevel, log_or_none
from holter_monitor.stream.steps import Step

PREFIXES = ("update_norm", "update_ratio")
"""`update_norm`: of the step's change of the weights; `update_ratio`: that over the weights' norm. A layer's follows: `update_ratio.layers.3`."""
EXCUSES = frozenset({"resume", "data_stage_change", "batch_size_change", "stage"})
MOST_SERIES = 256


@dataclass(slots=True)
class Followed:
    """One series: log(update / learning rate), which a schedule does not move."""

    level: RobustLevel = field(default_factory=lambda: RobustLevel(level_size=32, scale_size=128))
    away: int = 0
    """Steps in a row beyond the bar; negative: below it."""
    first: int = 0
    onset: int | None = None
    is_up: bool = False
    calm: int = 0


@dataclass(kw_only=True)
class UpdateNorm:
    """A factor of `factor` that lasts `run_steps` steps, against the median of the series' own last 32 values over the learning rate.

    Adam's update follows the learning rate and hardly the gradient, so an update that leaves it is the optimiser's trouble: second moments
    that were lost or reset (up), a layer whose gradients died (down, or exactly 0 from one step on). What is flagged is not learned from.
    A healthy ratio of update to weights is about 1e-3 a step (A. Karpathy, nn-zero-to-hero); the rule needs no such number. Cost: 1 µs a
    record where no update is logged.
    """

    kind: ClassVar[str] = "grad_explosion"
    factor: float = 10.0
    run_steps: int = 8
    warmup_steps: int = 50
    calm_steps: int = 50
    followed: dict[str, Followed] = field(init=False, default_factory=dict)

    def observe(self, step: Step) -> list[Finding] | None:
        names = [name for name in step.metrics if name.startswith(PREFIXES)]
        if not names:
            return None
        rate = log_or_none(step.mean("lr")) or 0.0
        said = []
        for name in names:
            series = self.followed.get(name)
            if series is None:
                if len(self.followed) >= MOST_SERIES:
                    continue
                series = self.followed[name] = Followed()
            if step.words & EXCUSES:
                series.level.relevel()
            value = step.mean(name)
            if value is not None and 0.0 <= value < float("inf"):
                found = self._judge(name, series, step.number, value, rate)
                said += [found] if found else []
        return said or None

    def _judge(self, name: str, series: Followed, step: int, value: float, rate: float) -> Finding | None:
        size = log(value) - rate if value > 0.0 else None
        if not series.level.knows(self.warmup_steps):
            if size is not None:
                series.level.learn(size)
            return None
        bar = max(log(self.factor), 6.0 * series.level.tail)
        height = -bar - 1.0 if size is None else size - series.level.level
        side = 1 if height > bar else -1 if height < -bar else 0
        if series.onset is not None:
            return self._follow(name, series, step, side)
        if side == 0:
            series.away = 0
            if size is not None:
                series.level.learn(size)
            return None
        if side * series.away <= 0:
            series.away, series.first = 0, step
        series.away += side
        if abs(series.away) < self.run_steps:
            return None
        series.onset, series.is_up, series.calm = series.first, side > 0, 0
        return self._finding(name, series, step, value)

    def _follow(self, name: str, series: Followed, step: int, side: int) -> Finding | None:
        series.calm = series.calm + 1 if side == 0 else 0
        if series.calm < self.calm_steps:
            return None
        ended = self._finding(name, series, step, None, end_step=step - self.calm_steps)
        series.onset, series.away = None, 0
        return ended

    def _finding(self, name: str, series: Followed, step: int, value: float | None, *, end_step: int | None = None) -> Finding:
        assert series.onset is not None
        how = "is back" if end_step is not None else "is 0: nothing is learned there" if value == 0.0 else f"is {value:.3g}"
        beyond = "above" if series.is_up else "below"
        return Finding(
            kind="grad_explosion" if series.is_up else "grad_vanishing",
            severity=Severity.WARNING,
            scope=name,
            onset_step=series.onset,
            detected_step=step,
            end_step=None if end_step is None else max(end_step, series.onset),
            metric=name,
            summary=f"{name} {how}; since step {series.onset} it stood more than {self.factor:.0f} times {beyond} what the learning rate explains",
            evidence={
                "value": value,
                "is_dead": value == 0.0,
                "rules_out": ["the learning rate: it has been divided out"],
                "window": [series.onset - 100, step],
            },
        )
