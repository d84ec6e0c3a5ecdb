"""A rank, or a whole node, that is slow by its own work: all step times are equal, the culprit is the one that does not wait."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import expm1
from typing import Any, ClassVar

import numpy as np

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.ranks import RankShift, by_node, named
from holter_monitor.stream.steps import Step

COMPUTE = "compute_seconds"
CLOCK = "gpu_sm_clock_hertz"


@dataclass(slots=True)
class Slow:
    """One rank or node under suspicion."""

    onset: int
    ranks: list[int]
    node: str
    cause: str
    worst: float
    """Largest mean shift (logarithm) so far."""
    lost: float = 0.0
    """Seconds."""
    steps: int = 0
    said_steps: int = 0
    calm: int = 0


@dataclass(kw_only=True)
class Straggler:
    """`compute_seconds` of each rank against the other ranks at the same step and against its own place among them.

    Pipeline stages differ by design, so a rank is judged by leaving its place; one that was out of place from the start is found when
    places are first known, against the ranks of its own pipeline stage. Cost: 0.7 ms for 16,384 ranks. State: 180 bytes a rank.
    """

    kind: ClassVar[str] = "straggler"
    least_slowdown: float = 0.012
    """The smallest lasting slowdown worth finding: 16,384 GPUs wait for it."""
    start_slowdown: float = 0.10
    """Slowdown against the ranks of the same stage that counts from the first step on."""
    page_slowdown: float = 0.25
    """Slowdown of the whole job that is worth waking somebody, after `page_steps`."""
    page_steps: int = 200
    least_seconds: float = 2.0
    """Time that a slowdown must have lasted."""
    max_share: float = 0.25
    """More of the ranks than this are a new normal, not stragglers."""
    calm_steps: int = 50
    shift: RankShift = field(init=False)
    slow: dict[str, Slow] = field(init=False, default_factory=dict)
    attempt: str = field(init=False, default="")
    times: list[float] = field(init=False, default_factory=list)
    numbers: list[int] = field(init=False, default_factory=list)
    """The last step numbers, to name an onset."""

    def __post_init__(self) -> None:
        self.shift = RankShift(least=self.least_slowdown)

    def observe(self, step: Step) -> list[Finding] | None:
        column = step.column(COMPUTE)
        if column is None or len(step.ranks) < 2:
            return None
        said = self._next_attempt(step) if step.attempt != self.attempt else []
        values, present = column
        good = present & (values > 0.0) & np.isfinite(values)
        if good.sum() < max(2, len(values) // 2):
            return said or None
        logs = np.full(len(values), np.nan)
        np.log(values, out=logs, where=good)
        middle = float(np.median(logs[good]))
        logs -= middle
        self.numbers = [*self.numbers[-63:], step.number]
        self.times = [*self.times[-63:], step.time]
        suspects = self.shift.update(logs)
        if suspects is None:
            return [*said, *self._from_the_start(step)] or None
        if not self.slow and not suspects.any():
            return said or None
        said += self._follow(step, float(np.exp(middle)))
        found = np.array([rank for rank in np.flatnonzero(suspects) if self._lasts(int(rank), step.time)], np.intp)
        if 0 < len(found) <= max(1, int(self.max_share * len(values))):
            said += self._begin(step, [int(rank) for rank in found])
        elif len(found):
            self.shift = RankShift(least=self.least_slowdown)  # most ranks have moved: learn the new places
        return said or None

    def _lasts(self, rank: int, now: float) -> bool:
        """In steps, and in seconds where the records have times: twelve steps may be the blink of a busy host."""
        ago = self.shift.count - int(self.shift.begun[rank])
        passed = now - self.times[-1 - ago] if ago < len(self.times) else self.least_seconds
        return self.shift.lasts(rank) and (passed >= self.least_seconds or passed <= 0.0)

    def finish(self) -> list[Finding]:
        return [self._finding(scope, slow, self.numbers[-1]) for scope, slow in self.slow.items()]

    def _next_attempt(self, step: Step) -> list[Finding]:
        """A new attempt may have other nodes under the same ranks: everything is learned again."""
        ended = [self._finding(scope, slow, step.number, end_step=step.number) for scope, slow in self.slow.items()]
        self.attempt, self.slow, self.shift = step.attempt, {}, RankShift(least=self.least_slowdown)
        return ended

    def _from_the_start(self, step: Step) -> list[Finding]:
        if self.shift.count != self.shift.warmup_steps or len(step.ranks) < 4:
            return []
        mesh, found = step.topology.mesh_of, []
        stages = np.array([mesh.get(int(rank), {}).get("pp", 0) for rank in step.ranks])
        for stage in np.unique(stages):
            members = np.flatnonzero(stages == stage)
            levels = self.shift.level[members]
            away = levels - np.median(levels)
            limit = max(self.start_slowdown, 8.0 * 1.4826 * float(np.median(np.abs(away))))
            if len(members) >= 4:
                found += members[away > limit].tolist()
        if not 0 < len(found) <= max(1, len(step.ranks) // 8):
            return []
        for rank in found:
            own = np.median(self.shift.level[stages == stages[rank]])
            self.shift.history[:, rank] = self.shift.level[rank] - own
            self.shift.level[rank] = own
            self.shift.begun[rank] = 0
        return self._begin(step, found)

    def _begin(self, step: Step, found: list[int]) -> list[Finding]:
        known = {rank for slow in self.slow.values() for rank in slow.ranks}
        fresh = [rank for rank in found if rank not in known]
        if not fresh:
            return []
        nodes, _ = by_node(self.shift.with_leaning([*fresh, *known], step.topology), step.topology)
        single = [rank for rank in fresh if step.topology.node_of.get(rank) not in nodes]
        said: list[Finding] = []
        for node, ranks in nodes.items():
            if f"node {node}" in self.slow or not set(ranks) & set(fresh):
                continue
            for scope in [scope for scope, slow in self.slow.items() if set(slow.ranks) <= set(ranks)]:
                said.append(self._finding(scope, self.slow.pop(scope), step.number, end_step=step.number))
            said.append(self._open(f"node {node}", ranks, node, step))
        return said + [self._open(f"rank {rank}", [rank], "", step) for rank in single]

    def _open(self, scope: str, ranks: list[int], node: str, step: Step) -> Finding:
        begun = min(int(self.shift.begun[rank]) for rank in ranks)
        ago = min(self.shift.count - begun, len(self.numbers) - 1)
        worst = max(self.shift.shift(rank) for rank in ranks)
        slow = self.slow[scope] = Slow(self.numbers[-1 - ago], ranks, node, self._cause(ranks, step), worst, steps=ago + 1)
        column = step.column(COMPUTE)
        if column is not None:
            slow.lost = expm1(worst) * float(np.nanmedian(column[0])) * slow.steps
        slow.said_steps = slow.steps
        return self._finding(scope, slow, step.number)

    def _cause(self, ranks: list[int], step: Step) -> str:
        """ "throttle" where the clocks say so or, without clocks, where the rank slid into slowness as a GPU that heats up does."""
        clocks = step.column(CLOCK)
        if clocks is not None:
            values, present = clocks
            good = present & (values > 0.0)
            if good.any() and good[ranks].any():
                return "throttle" if float(values[ranks][good[ranks]].min()) < 0.93 * float(np.median(values[good])) else "own work"
        return "throttle" if all(self.shift.is_sliding(rank) for rank in ranks) else "own work"

    def _follow(self, step: Step, typical: float) -> list[Finding]:
        said = []
        newest = self.shift.history[self.shift.count % self.shift.kept_steps]
        for scope, slow in list(self.slow.items()):
            slow.steps += 1
            now = float(newest[slow.ranks].max())
            slow.lost += max(0.0, expm1(min(now, 5.0))) * typical
            mean = max(float(self.shift.history[:, rank].mean()) for rank in slow.ranks)
            slow.worst = max(slow.worst, mean)
            slow.calm = slow.calm + 1 if mean < max(0.4 * self.least_slowdown, 0.25 * slow.worst) else 0
            if slow.calm >= self.calm_steps:
                del self.slow[scope]
                self.shift.forget(slow.ranks)
                said.append(self._finding(scope, slow, step.number, end_step=step.number - self.calm_steps))
            elif slow.steps >= 2 * slow.said_steps and slow.steps >= 50:
                slow.said_steps = slow.steps
                said.append(self._finding(scope, slow, step.number))
        return said

    def _finding(self, scope: str, slow: Slow, step: int, *, end_step: int | None = None) -> Finding:
        slower = expm1(slow.worst)
        pages = slower >= self.page_slowdown and slow.steps >= self.page_steps
        who = f"node {slow.node} ({named(slow.ranks)})" if slow.node else named(slow.ranks)
        verb = "is" if slow.node or len(slow.ranks) == 1 else "are"
        why = "; it slid into it, as a GPU that heats up does" if slow.cause == "throttle" else ""
        return Finding(
            kind=self.kind,
            severity=Severity.CRITICAL if pages else Severity.WARNING,
            scope=scope,
            onset_step=slow.onset,
            detected_step=step,
            end_step=None if end_step is None else max(end_step, slow.onset),
            metric=COMPUTE,
            ranks=tuple(slow.ranks),
            nodes=(slow.node,) if slow.node else (),
            score=slow.worst / self.least_slowdown,
            cost_seconds=slow.lost,
            summary=(
                f"{who} {verb} {slower:.1%} slower in its own work than its place among the ranks since step {slow.onset}, "
                f"{slow.lost:,.0f} s lost by all that wait for it{why}"
            ),
            evidence=self._evidence(slow, step),
        )

    def _evidence(self, slow: Slow, step: int) -> dict[str, Any]:
        return {
            "cause": slow.cause,
            "pattern": "chronic",
            "slowdown": round(expm1(slow.worst), 4),
            "steps": slow.steps,
            "spread": round(self.shift.sigma, 5),
            "rules_out": ["the network, the other ranks and the data: the extra time is inside its own compute sections"],
            "window": [slow.onset - 100, step],
        }
