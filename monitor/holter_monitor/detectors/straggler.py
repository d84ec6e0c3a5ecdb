"""A rank, or a whole node, that is slow by its own work: all step times are equal, the culprit is the one that does not wait."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import exp, expm1
from typing import Any, ClassVar

import numpy as np

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.rotation import Rotation
from holter_monitor.stream.steps import Step
from holter_monitor.stream.suspects import ROTATING_STEPS, Suspect, Suspects

COMPUTE = "compute_seconds"
CLOCK = "gpu_sm_clock_hertz"


@dataclass(slots=True)
class Moving:
    """A slowness that moves from rank to rank."""

    onset: int
    node: str
    """Where it stays on one."""
    lost: float = 0.0
    worst: float = 0.0
    steps: int = 64
    said_steps: int = 64


@dataclass(kw_only=True)
class Straggler:
    """`compute_seconds` of each rank against the other ranks at the same step and against its own place among them.

    Pipeline stages differ by design, so a rank is judged by leaving its place; one that was out of place from the start is found when
    places are first known, against the ranks of its own pipeline stage. A slowness that moves from rank to rank (each step somebody else: a
    host's jobs, garbage collection; or one rank after another for a while) is "rotating", with the node where it stays on one; any other is
    "chronic". Cost: 1.8 ms for 16,384 ranks. State: 180 bytes a rank.
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
    suspects: Suspects = field(init=False)
    rotation: Rotation = field(init=False, default_factory=Rotation)
    moving: Moving | None = field(init=False, default=None)
    attempt: str = field(init=False, default="")
    times: deque[float] = field(init=False, default_factory=lambda: deque(maxlen=64))

    def __post_init__(self) -> None:
        self.suspects = Suspects(least=self.least_slowdown, calm_steps=self.calm_steps)

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
        self.times.append(step.time)
        proven = self.suspects.update(logs, step.number)
        if self.suspects.shift.count <= self.suspects.shift.warmup_steps:
            return [*said, *self._from_the_start(step)] or None
        said += self._rotate(step, exp(middle))
        if proven is not None:
            said += self._judge(step, proven, exp(middle))
        return said or None

    def _judge(self, step: Step, proven: list[int], typical: float) -> list[Finding]:
        over, lasting = self.suspects.follow(lambda shift: expm1(min(shift, 5.0)) * typical)
        said = [self._finding(slow, step.number, end_step=step.number - self.calm_steps) for slow in over]
        said += [self._finding(slow, step.number) for slow in lasting]
        found = [rank for rank in proven if self._lasts(rank, step.time)]
        if len(found) > max(1, int(self.max_share * len(step.ranks))):
            self.suspects.learn_again()  # most ranks have moved
            return said
        return said + self._begin(step, found)

    def _lasts(self, rank: int, now: float) -> bool:
        """In steps, and in seconds where the records have times: twelve steps may be the blink of a busy host."""
        shift = self.suspects.shift
        ago = shift.count - int(shift.begun[rank])
        passed = now - self.times[-1 - ago] if ago < len(self.times) else self.least_seconds
        return shift.lasts(rank) and (passed >= self.least_seconds or passed <= 0.0)

    def finish(self) -> list[Finding]:
        said = [self._finding(slow, self.suspects.numbers[-1]) for slow in self.suspects.open.values()]
        return [*said, self._moving_finding(self.suspects.numbers[-1])] if self.moving else said

    def _next_attempt(self, step: Step) -> list[Finding]:
        ended = [self._finding(slow, step.number, end_step=step.number) for slow in self.suspects.next_attempt()]
        if self.moving:
            ended.append(self._moving_finding(step.number, end_step=step.number))
        self.attempt, self.moving, self.rotation = step.attempt, None, Rotation()
        return ended

    def _from_the_start(self, step: Step) -> list[Finding]:
        shift = self.suspects.shift
        if shift.count != shift.warmup_steps or len(step.ranks) < 4:
            return []
        mesh, found = step.topology.mesh_of, []
        stages = np.array([mesh.get(int(rank), {}).get("pp", 0) for rank in step.ranks])
        for stage in np.unique(stages):
            members = np.flatnonzero(stages == stage)
            levels = shift.level[members]
            away = levels - np.median(levels)
            limit = max(self.start_slowdown, 8.0 * 1.4826 * float(np.median(np.abs(away))))
            if len(members) >= 4:
                found += members[away > limit].tolist()
        if not 0 < len(found) <= max(1, len(step.ranks) // 8):
            return []
        for rank in found:
            own = np.median(shift.level[stages == stages[rank]])
            shift.history[:, rank] = shift.level[rank] - own
            shift.level[rank] = own
            shift.begun[rank] = 0
        return self._begin(step, found)

    def _begin(self, step: Step, found: list[int]) -> list[Finding]:
        begun, merged = self.suspects.name(found, step.topology)
        column = step.column(COMPUTE)
        for slow in begun:
            slow.cause = self._cause(slow.ranks, step)
            if column is not None:
                slow.lost = expm1(slow.worst) * float(np.nanmedian(column[0])) * slow.steps
        said = [self._finding(slow, step.number, end_step=step.number) for slow in merged]
        return said + [self._finding(slow, step.number) for slow in begun]

    def _cause(self, ranks: list[int], step: Step) -> str:
        """ "throttle" where the clocks say so or, without clocks, where the rank slid into slowness as a GPU that heats up does."""
        clocks = step.column(CLOCK)
        if clocks is not None:
            values, present = clocks
            good = present & (values > 0.0)
            if good.any() and good[ranks].any():
                return "throttle" if float(values[ranks][good[ranks]].min()) < 0.93 * float(np.median(values[good])) else "own work"
        return "throttle" if all(self.suspects.shift.is_sliding(rank) for rank in ranks) else "own work"

    def _rotate(self, step: Step, typical: float) -> list[Finding]:
        """Steps that somebody holds up who is under no suspicion of their own."""
        shift = self.suspects.shift
        away = shift.history[shift.count % shift.kept_steps]
        known = [rank for slow in self.suspects.open.values() for rank in slow.ranks]
        if known:
            away = away.copy()
            away[known] = 0.0
        excess = self.rotation.push(away, shift.sigma, step.number)
        moving = self.moving
        if moving is None:
            if excess == 0.0 or not self._is_moving():
                return []
            self.moving = moving = Moving(self.rotation.onset, self.rotation.node(step.topology))
            moving.lost = sum(expm1(min(away, 5.0)) for away in self.rotation.excess) * typical
            return [self._moving_finding(step.number)]
        moving.steps += 1
        moving.lost += expm1(min(excess, 5.0)) * typical
        moving.worst = max(moving.worst, self.rotation.mean)
        if 4 * self.rotation.held_up < self.rotation.window:
            self.moving = None
            return [self._moving_finding(step.number, moving, end_step=max(moving.onset, step.number - self.rotation.window))]
        if moving.steps >= 2 * moving.said_steps:
            moving.said_steps = moving.steps
            return [self._moving_finding(step.number)]
        return []

    def _is_moving(self) -> bool:
        """Beyond what this run is like: from its start it must cost as much as a straggler that was there from the start."""
        usual = self.rotation.usual
        least = self.start_slowdown if usual > 0.5 * self.rotation.mean else usual + self.rotation.least
        return self.rotation.moves() and self.rotation.mean >= least

    def _finding(self, slow: Suspect, step: int, *, end_step: int | None = None) -> Finding:
        slower = expm1(slow.worst)
        pages = slower >= self.page_slowdown and slow.steps >= self.page_steps
        who = slow.who
        verb = "is" if slow.node or len(slow.ranks) == 1 else "are"
        why = "; it slid into it, as a GPU that heats up does" if slow.cause == "throttle" else ""
        if slow.pattern == "rotating":
            why += f"; {slow.before} others were slow within {ROTATING_STEPS} steps before it: look at what moves, or at what they share"
        return Finding(
            kind=self.kind,
            severity=Severity.CRITICAL if pages else Severity.WARNING,
            scope=slow.scope,
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

    def _evidence(self, slow: Suspect, step: int) -> dict[str, Any]:
        return {
            "cause": slow.cause,
            "pattern": slow.pattern,
            "slowdown": round(expm1(slow.worst), 4),
            "steps": slow.steps,
            "spread": round(self.suspects.shift.sigma, 5),
            "rules_out": ["the network, the other ranks and the data: the extra time is inside its own compute sections"],
            "window": [slow.onset - 100, step],
        }

    def _moving_finding(self, step: int, moving: Moving | None = None, *, end_step: int | None = None) -> Finding:
        moving = moving or self.moving
        assert moving is not None
        times = self.rotation.ranks()
        where = f"a rank of node {moving.node}" if moving.node else "somebody"
        look = "its host" if moving.node else "what moves: garbage collection, background jobs, uneven batches"
        return Finding(
            kind=self.kind,
            severity=Severity.WARNING,
            scope="rotating",
            onset_step=moving.onset,
            detected_step=step,
            end_step=end_step,
            metric=COMPUTE,
            ranks=tuple(sorted(times)) if moving.node else (),
            nodes=(moving.node,) if moving.node else (),
            score=self.rotation.mean / self.rotation.least,
            cost_seconds=moving.lost,
            summary=(
                f"{where} is slow at {self.rotation.held_up} of the last {len(self.rotation.slowest)} steps, another one each time ({len(times)} ranks), "
                f"since step {moving.onset}: all wait {self.rotation.mean:.1%} longer, {moving.lost:,.0f} s lost; look at {look}"
            ),
            evidence={
                "cause": "own work",
                "pattern": "rotating",
                "slowdown": round(expm1(self.rotation.mean), 4),
                "held_up": self.rotation.held_up,
                "slowest": {str(rank): count for rank, count in times.most_common(8)},
                "rules_out": ["one slow GPU: no rank is slow for long"],
                "window": [moving.onset - 100, step],
            },
        )
