"""Ranks that log different numbers where all must log the same: one of them runs another schedule, another configuration, another state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from holter_monitor.findings import Finding, Severity
from holter_monitor.ranks import named
from holter_monitor.steps import Step

EQUAL = (
    "lr",
    "learning_rate",
    "loss_scale",
    "weight_decay",
    "epoch",
    "global_step",
    "consumed_samples",
    "consumed_tokens",
    "global_batch_size",
)
"""What is computed from the configuration and the step alone, or from a global state; a rank's own loss or token count is not."""


@dataclass(kw_only=True)
class RankDisagreement:
    """Against the value that most ranks log; pipeline stages may have parameter groups of their own, so a difference by stage is none.

    Cost: 50 µs a step and metric for 16,384 ranks.
    """

    kind: ClassVar[str] = "rank_disagreement"
    tolerance: float = 1e-6
    """Relative: float32 and float64 of the same number differ by less."""
    steps: int = 3
    """Steps in a row, so that a schedule read a moment late is none."""
    streaks: dict[str, list[int]] = field(init=False, default_factory=dict)
    """Metric -> [onset, steps in a row, steps in agreement since, whether it was said]."""
    named: dict[str, list[int]] = field(init=False, default_factory=dict)

    def observe(self, step: Step) -> list[Finding] | None:
        if len(step.ranks) < 2:
            return None
        said: list[Finding] = []
        for metric in EQUAL:
            column = step.column(metric)
            if column is None:
                continue
            good = column[1] & np.isfinite(column[0])
            if good.sum() < 2:
                continue
            common = float(np.median(column[0][good]))
            off = good & (np.abs(column[0] - common) > self.tolerance * max(abs(common), 1e-30))
            if not off.any() and metric not in self.streaks:
                continue
            ranks = [int(step.ranks[place]) for place in np.flatnonzero(off)]
            said += self._follow(metric, [] if self._is_by_stage(step, ranks) else ranks, common, step)
        return said or None

    def _is_by_stage(self, step: Step, ranks: list[int]) -> bool:
        """Whether exactly the ranks of some pipeline stages differ."""
        stage = {rank: mesh.get("pp") for rank, mesh in step.topology.mesh_of.items()}
        stages = {stage.get(rank) for rank in ranks} - {None}
        return bool(stages) and set(ranks) == {int(rank) for rank in step.ranks if stage.get(int(rank)) in stages}

    def _follow(self, metric: str, ranks: list[int], common: float, step: Step) -> list[Finding]:
        streak = self.streaks.setdefault(metric, [step.number, 0, 0, 0])
        if ranks:
            streak[1] += 1
            streak[2] = 0
            if streak[1] != self.steps:
                return []
            streak[3], self.named[metric] = 1, ranks[:1024]
            return [self._finding(metric, streak[0], common, step)]
        streak[2] += 1
        if streak[2] < 10 and streak[3]:
            return []
        del self.streaks[metric]
        return [self._finding(metric, streak[0], common, step, end_step=step.number)] if streak[3] else []

    def _finding(self, metric: str, onset: int, common: float, step: Step, *, end_step: int | None = None) -> Finding:
        ranks = self.named[metric]
        column = step.column(metric)
        own = float(column[0][ranks[0]]) if column is not None and ranks[0] < len(column[0]) and column[1][ranks[0]] else None
        verb = "logs" if len(ranks) == 1 else "log"
        tail = (
            "agree again"
            if end_step is not None
            else f"{named(ranks)} {verb} {own if own is None else format(own, '.6g')}, the others {common:.6g}"
        )
        return Finding(
            kind=self.kind,
            severity=Severity.WARNING,
            scope=metric,
            onset_step=onset,
            detected_step=step.number,
            end_step=end_step,
            metric=metric,
            ranks=tuple(ranks),
            nodes=step.topology.nodes(ranks),
            score=float(len(ranks)),
            summary=f"{metric} must be equal on all ranks and is not since step {onset}: {tail}",
            evidence={"common": common, "own": own, "ranks": len(ranks), "of_ranks": len(step.ranks), "window": [onset - 50, step.number]},
        )
