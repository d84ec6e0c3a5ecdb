"""One node, or one rank, that waits for its data longer than the others do: everybody waits with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.ranks import RankShift, by_node, named
from holter_monitor.stream.steps import Step, Values

WAIT = "data_wait_seconds"
WORK = ("compute_seconds", "step_time_seconds")


@dataclass(slots=True)
class Waiting:
    onset: int
    ranks: list[int]
    node: str
    share: float
    """Of the step, beyond its usual place: the largest mean so far."""
    lost: float = 0.0
    steps: int = 0
    said_steps: int = 0
    calm: int = 0


@dataclass(kw_only=True)
class RankDataWait:
    """Each rank's `data_wait_seconds`, as a share of the step, against the other ranks at the same step and its own place among them.

    A wait of all ranks together is `DataStall`'s matter and cancels out here. Cost: 0.6 ms for 16,384 ranks. State: 180 bytes a rank.
    """

    kind: ClassVar[str] = "data_stall"
    least_share: float = 0.02
    """The smallest lasting extra wait worth finding, as a share of the step."""
    page_share: float = 0.3
    """Extra wait that is worth waking somebody, after `page_steps`."""
    page_steps: int = 200
    max_share: float = 0.25
    """More of the ranks than this are a new normal."""
    calm_steps: int = 50
    shift: RankShift = field(init=False)
    waiting: dict[str, Waiting] = field(init=False, default_factory=dict)
    attempt: str = field(init=False, default="")
    numbers: list[int] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.shift = RankShift(least=self.least_share)

    def observe(self, step: Step) -> list[Finding] | None:
        column = step.column(WAIT)
        if column is None or len(step.ranks) < 2:
            return None
        said = self._next_attempt(step) if step.attempt != self.attempt else []
        values, present = column
        good = present & np.isfinite(values)
        whole = self._whole(step, values[good])
        if whole is None or good.sum() < max(2, len(values) // 2):
            return said or None
        shares = np.where(good, (values - float(np.median(values[good]))) / whole, np.nan)
        self.numbers = [*self.numbers[-63:], step.number]
        suspects = self.shift.update(shares)
        if suspects is None or not (self.waiting or suspects.any()):
            return said or None
        said += self._follow(step, whole)
        found = [int(rank) for rank in np.flatnonzero(suspects) if self.shift.lasts(int(rank))]
        if len(found) > max(1, int(self.max_share * len(values))) and len(by_node(found, step.topology)[0]) != 1:
            self.shift = RankShift(least=self.least_share)
        elif found:
            said += self._begin(step, found, whole)
        return said or None

    def finish(self) -> list[Finding]:
        return [self._finding(scope, waiting, self.numbers[-1]) for scope, waiting in self.waiting.items()]

    def _whole(self, step: Step, waits: Values) -> float | None:
        """What a step takes without the extra wait: the ranks' median work and wait, or the step time."""
        for metric in WORK:
            work = step.column(metric)
            if work is not None and len(waits):
                total = float(np.nanmedian(work[0])) + (float(np.median(waits)) if metric == WORK[0] else 0.0)
                if 0.0 < total < float("inf"):
                    return total
        return None

    def _next_attempt(self, step: Step) -> list[Finding]:
        ended = [self._finding(scope, waiting, step.number, end_step=step.number) for scope, waiting in self.waiting.items()]
        self.attempt, self.waiting, self.shift = step.attempt, {}, RankShift(least=self.least_share)
        return ended

    def _begin(self, step: Step, found: list[int], whole: float) -> list[Finding]:
        known = {rank for waiting in self.waiting.values() for rank in waiting.ranks}
        nodes, _ = by_node(self.shift.with_leaning([*found, *known], step.topology), step.topology, share=0.5)
        single = [rank for rank in found if step.topology.node_of.get(rank) not in nodes]
        said: list[Finding] = []
        for node, ranks in nodes.items():
            if f"node {node}" in self.waiting:
                continue
            for scope in [scope for scope, waiting in self.waiting.items() if set(waiting.ranks) <= set(ranks)]:
                said.append(self._finding(scope, self.waiting.pop(scope), step.number, end_step=step.number))
            members = [rank for rank in map(int, step.ranks) if step.topology.node_of.get(rank) == node]
            said.append(self._open(f"node {node}", members, node, (step.number, whole)))
        return said + [self._open(f"rank {rank}", [rank], "", (step.number, whole)) for rank in single if rank not in known]

    def _open(self, scope: str, ranks: list[int], node: str, now: tuple[int, float]) -> Finding:
        begun = min((int(self.shift.begun[rank]) for rank in ranks if self.shift.high[rank] > 0.0), default=self.shift.count)
        ago = min(self.shift.count - begun, len(self.numbers) - 1)
        share = max(self.shift.shift(rank) for rank in ranks)
        waiting = Waiting(self.numbers[-1 - ago], ranks, node, share, lost=share * now[1] * (ago + 1), steps=ago + 1, said_steps=ago + 1)
        self.waiting[scope] = waiting
        return self._finding(scope, waiting, now[0])

    def _follow(self, step: Step, whole: float) -> list[Finding]:
        said = []
        newest = self.shift.history[self.shift.count % self.shift.kept_steps]
        for scope, waiting in list(self.waiting.items()):
            waiting.steps += 1
            waiting.lost += max(0.0, float(newest[waiting.ranks].max())) * whole
            mean = float(self.shift.history[:, waiting.ranks].mean(axis=0).max())
            waiting.share = max(waiting.share, mean)
            waiting.calm = waiting.calm + 1 if mean < max(0.4 * self.least_share, 0.25 * waiting.share) else 0
            if waiting.calm >= self.calm_steps:
                del self.waiting[scope]
                self.shift.forget(waiting.ranks)
                said.append(self._finding(scope, waiting, step.number, end_step=step.number - self.calm_steps))
            elif waiting.steps >= 2 * waiting.said_steps and waiting.steps >= 50:
                waiting.said_steps = waiting.steps
                said.append(self._finding(scope, waiting, step.number))
        return said

    def _finding(self, scope: str, waiting: Waiting, step: int, *, end_step: int | None = None) -> Finding:
        pages = waiting.share >= self.page_share and waiting.steps >= self.page_steps
        who = f"node {waiting.node} ({named(waiting.ranks)})" if waiting.node else named(waiting.ranks)
        return Finding(
            kind=self.kind,
            severity=Severity.CRITICAL if pages else Severity.WARNING,
            scope=scope,
            onset_step=waiting.onset,
            detected_step=step,
            end_step=None if end_step is None else max(end_step, waiting.onset),
            metric=WAIT,
            ranks=tuple(waiting.ranks),
            nodes=(waiting.node,) if waiting.node else (),
            score=waiting.share / self.least_share,
            cost_seconds=waiting.lost,
            summary=(
                f"{who} waits for data {waiting.share:.1%} of a step longer than the other ranks since step {waiting.onset}, "
                f"{waiting.lost:,.0f} s lost by all that wait for it"
            ),
            evidence={
                "cause": "data_wait",
                "share": round(waiting.share, 4),
                "steps": waiting.steps,
                "spread": round(self.shift.sigma, 5),
                "rules_out": ["the shared file system as a whole: the other ranks' waits are as before"],
                "window": [waiting.onset - 100, step],
            },
        )
