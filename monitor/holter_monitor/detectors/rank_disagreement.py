"""Ranks that log different numbers where all must log the same: one of them runs another schedule, another configuration, another state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.ranks import named
from holter_monitor.stream.steps import Step, Values

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
LEARNED = ("loss", "grad_norm")
"""Equal where the loop logs the reduced value, a rank's own where it does not: judged once they have been seen equal."""


@dataclass(kw_only=True)
class RankDisagreement:
    """Against the value that most ranks log; pipeline stages may have parameter groups of their own, so a difference by stage is none.

    Loss and gradient norm are learned: equal on all ranks for `learning_steps`, they must stay so; else equal within each
    tensor-parallel group for as long, they must stay so there. A loop that logs each rank's own is never judged by them.

    Cost: 50 µs a step and metric for 16,384 ranks.
    """

    kind: ClassVar[str] = "rank_disagreement"
    tolerance: float = 1e-6
    """Relative: float32 and float64 of the same number differ by less."""
    steps: int = 3
    """Steps in a row, so that a schedule read a moment late is none."""
    learning_steps: int = 50
    """Steps for which a learned metric must have been equal before it is judged."""
    streaks: dict[str, list[int]] = field(init=False, default_factory=dict)
    """Metric -> [onset, steps in a row, steps in agreement since, whether it was said]."""
    named: dict[str, list[int]] = field(init=False, default_factory=dict)
    equal_for: dict[str, int] = field(init=False, default_factory=dict)
    """Learned metric (and " tp" within groups) -> steps for which it was equal; -1: it is each rank's own."""
    partners: NDArray[np.int32] = field(init=False, default_factory=lambda: np.empty(0, np.int32))
    """Place of a rank -> place of the first of its tensor-parallel group, as of `partners_of`."""
    partners_of: list[str | int] = field(init=False, default_factory=list)

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
        for metric in LEARNED:
            said += self._learned(metric, step)
        return said or None

    def _learned(self, metric: str, step: Step) -> list[Finding]:
        column = step.column(metric)
        if column is None or "resume" in step.words or not (column[1] & np.isfinite(column[0])).all():
            return []
        values = column[0]
        for key in (metric, f"{metric} tp"):
            if self.equal_for.get(key) == -1:
                continue
            common = self._common(values, step, within_groups=key != metric)
            if common is None:
                return []
            off = np.abs(values - common) > self.tolerance * np.maximum(np.abs(common), 1e-30)
            if self.equal_for.setdefault(key, 0) < self.learning_steps:
                self.equal_for[key] = -1 if off.any() else self.equal_for[key] + 1
                continue
            if key != metric:
                # Of the two of a pair nobody knows which is wrong: the whole group is named.
                off = np.isin(self.partners, self.partners[off])
            ranks = [int(rank) for rank in step.ranks[off]]
            return self._follow(metric, ranks, float(common[off][0]) if ranks else 0.0, step) if ranks or metric in self.streaks else []
        return []

    def _common(self, values: Values, step: Step, *, within_groups: bool) -> Values | None:
        """What each rank is compared with: the median of all, or the first of its tensor-parallel group (None without such groups)."""
        if not within_groups:
            return np.broadcast_to(np.median(values), values.shape)
        known: list[str | int] = [step.attempt, len(step.topology.mesh_of), len(step.ranks)]
        if known != self.partners_of:
            self.partners_of, self.partners = known, _partners(step)
        return values[self.partners] if len(self.partners) else None

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


def _partners(step: Step) -> NDArray[np.int32]:
    """For each rank the place of the first rank of its tensor-parallel group; empty where no mesh with `tp` is known for all."""
    firsts: dict[tuple[tuple[str, int], ...], int] = {}
    places = np.zeros(len(step.ranks), np.int32)
    for place, rank in enumerate(step.ranks.tolist()):
        mesh = step.topology.mesh_of.get(rank)
        if mesh is None or "tp" not in mesh:
            return np.empty(0, np.int32)
        places[place] = firsts.setdefault(tuple(sorted((axis, at) for axis, at in mesh.items() if axis != "tp")), place)
    return places if len(firsts) < len(step.ranks) else np.empty(0, np.int32)
