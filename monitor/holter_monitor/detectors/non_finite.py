"""A loss or a gradient norm that is NaN or infinite: on all ranks, or on one rank behind a mean that leaves it out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.steps import Step


@dataclass(kw_only=True)
class NonFinite:
    """Warns at the first non-finite value, pages when it stays: a single one may be an overflow that the loss scaler skips.

    A metric that was never finite is a placeholder, except the loss itself.
    """

    kind: ClassVar[str] = "non_finite"
    persistent_steps: int = 3
    """Non-finite steps in a row that page."""
    calm_steps: int = 10
    """Finite steps in a row after which the trouble is over."""
    streaks: dict[str, list[int]] = field(init=False, default_factory=dict)
    """Open trouble by metric: [onset step, non-finite steps, finite steps since the last]."""
    known: dict[str, bool] = field(init=False, default_factory=dict)
    """Metrics seen finite."""

    def observe(self, step: Step) -> list[Finding]:
        findings = []
        for metric in step.metrics:
            is_known = self.known.get(metric)
            if is_known is None and not _is_training(metric):
                continue
            ranks = step.non_finite(metric)
            if len(ranks):
                findings += self._bad(step, metric, ranks.tolist())
            else:
                if is_known is None:
                    self.known[metric] = True
                if metric in self.streaks:
                    findings += self._good(step, metric)
        return findings

    def _bad(self, step: Step, metric: str, ranks: list[int]) -> list[Finding]:
        if metric != "loss" and metric not in self.known:
            return []
        streak = self.streaks.setdefault(metric, [step.number, 0, 0])
        streak[1] += 1
        streak[2] = 0
        if streak[1] not in (1, self.persistent_steps):
            return []
        severity = Severity.WARNING if streak[1] == 1 else Severity.CRITICAL
        return [self._finding(step, metric, severity, ranks)]

    def _good(self, step: Step, metric: str) -> list[Finding]:
        streak = self.streaks[metric]
        streak[2] += 1
        if streak[2] < self.calm_steps:
            return []
        severity = Severity.WARNING if streak[1] < self.persistent_steps else Severity.CRITICAL
        finding = self._finding(step, metric, severity, [], end_step=step.number)
        del self.streaks[metric]
        return [finding]

    def _finding(self, step: Step, metric: str, severity: Severity, ranks: list[int], *, end_step: int | None = None) -> Finding:
        onset, count, _ = self.streaks[metric]
        of_all = len(step.ranks)
        where = f" on rank {ranks[0]}" if len(ranks) == 1 and of_all > 1 else f" on {len(ranks)} of {of_all} ranks" if of_all > 1 else ""
        said = f"{metric} is finite again since step {end_step}" if end_step is not None else f"{metric} is not finite{where}"
        return Finding(
            kind=self.kind,
            severity=severity,
            scope=metric,
            onset_step=onset,
            detected_step=step.number,
            end_step=end_step,
            metric=metric,
            ranks=tuple(ranks[:64]) if len(ranks) < of_all else (),
            score=float(count),
            summary=f"{said} (first at step {onset}, {count} steps so far)",
            evidence={"steps": count, "ranks": len(ranks), "of_ranks": of_all, "window": [onset - 50, step.number]},
        )


def _is_training(metric: str) -> bool:
    return metric.endswith(("loss", "norm")) and not metric.startswith(("eval", "val"))
