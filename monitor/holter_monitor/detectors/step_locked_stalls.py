"""Stalls that come back at the same step numbers in another attempt: what stalls travels with the position in the data, not with a machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.pace import SHARED, Pace
from holter_monitor.stream.steps import Step

KEPT = 4096


@dataclass(slots=True)
class Trail:
    """Where one attempt stalled."""

    name: str
    first: int = -1
    last: int = -1
    records: int = 0
    steps: list[int] = field(default_factory=list)


@dataclass(kw_only=True)
class StepLockedStalls:
    """Hypergeometric test over the steps that two attempts share: K stalls then, n now, k at the same steps, of N.

    Declared and learned pauses are left out: a checkpoint every 500 steps recurs by design. Cost: 2 µs a record, one test a stall.
    Source: the playbook's second trace (reference/playbook.md): 40 of 40 stalls recur, 0.99 expected.
    """

    kind: ClassVar[str] = "step_locked_stalls"
    least_ratio: float = 2.0
    """Times the level that makes a stall here: twice the time, half the throughput."""
    chance: float = 1e-6
    """Probability of so many coincidences below which they are none."""
    least_cost: float = 0.01
    """Share of the shared steps' time that the recurring stalls must cost."""
    settle_records: int = 100
    """A count that has grown is told again when it has doubled, and at the latest so many records after it was last told."""
    pace: Pace = field(init=False, default_factory=Pace, metadata=SHARED)
    now: Trail = field(init=False, default_factory=lambda: Trail(""))
    earlier: list[Trail] = field(init=False, default_factory=list)
    excess: float = field(init=False, default=0.0)
    seconds: float = field(init=False, default=0.0)
    matched: list[int] = field(init=False, default_factory=list)
    said: int = field(init=False, default=0)
    said_record: int = field(init=False, default=0)
    attempts: int = field(init=False, default=1)

    def observe(self, step: Step) -> Finding | None:
        if self.now.records and (step.attempt != self.now.name or step.number < self.now.last):
            self._next_attempt()
        if not self.now.records:
            self.now = Trail(step.attempt, step.number)
        self.now.records += 1
        self.now.last = step.number
        beat = self.pace.observe(step)
        if beat is None or beat.stall is None or beat.stall.excused or beat.ratio < self.least_ratio or self.pace.run_of_stalls >= 20:
            return self._retell(step.number) if 0 < self.said < len(self.matched) else None
        if len(self.now.steps) < KEPT:
            self.now.steps.append(step.number)
        return self._compare(step.number, beat.ratio - 1.0, beat.stall.seconds) if self.earlier else None

    def finish(self) -> Finding | None:
        return self._finding(self.now.last, *self._odds()) if self.said else None

    def _next_attempt(self) -> None:
        """Keeps the ended attempt's stalls, less those that turned out to be regular, and starts afresh."""
        regular = {stall.step for stall in self.pace.stalls if stall.excused}
        self.now.steps = [step for step in self.now.steps if step not in regular]
        self.earlier = [*self.earlier[-3:], self.now]
        self.attempts += 1
        self.now, self.matched, self.excess, self.seconds, self.said = Trail(""), [], 0.0, 0.0, 0

    def _compare(self, step: int, excess: float, seconds: float) -> Finding | None:
        slack = int(max(0.0, self.pace.stride - 1.0))
        if not any(abs(step - old) <= slack for trail in self.earlier for old in trail.steps):
            return None
        self.matched.append(step)
        self.excess += excess
        self.seconds += seconds
        if self.said and len(self.matched) < 2 * self.said:
            return self._retell(step)
        records, then, stalls, probability = self._odds()
        if len(self.matched) < 3 or probability > self.chance or self.excess < self.least_cost * records:
            return None
        return self._tell(step, (records, then, stalls, probability))

    def _retell(self, step: int) -> Finding | None:
        return self._tell(step, self._odds()) if self.now.records - self.said_record >= self.settle_records else None

    def _tell(self, step: int, odds: tuple[int, int, int, float]) -> Finding:
        self.said, self.said_record = len(self.matched), self.now.records
        return self._finding(step, *odds)

    def _odds(self) -> tuple[int, int, int, float]:
        """`(shared records, earlier stalls among them, stalls now, probability of the matches by chance)`."""
        low, high = max(self.now.first, min(t.first for t in self.earlier)), min(self.now.last, max(t.last for t in self.earlier))
        records = max(1, int((high - low) / max(1.0, self.pace.stride)) + 1)
        then = len({step for trail in self.earlier for step in trail.steps if low <= step <= high})
        stalls = sum(1 for step in self.now.steps if low <= step <= high)
        from scipy.stats import hypergeom  # late: a quarter of the time that importing the collector took

        return records, then, stalls, float(hypergeom.sf(len(self.matched) - 1, max(records, then, stalls), then, stalls))

    def _finding(self, step: int, records: int, then: int, stalls: int, probability: float) -> Finding:
        expected = then * stalls / records
        lost = f", {self.seconds:,.0f} s lost" if self.seconds else ""
        return Finding(
            kind=self.kind,
            severity=Severity.WARNING,
            scope=f"attempt {self.attempts}",
            onset_step=self.matched[0],
            detected_step=step,
            metric=self.pace.basis,
            score=float(len(self.matched)),
            cost_seconds=self.seconds or None,
            summary=(
                f"{len(self.matched)} of {stalls} stalled steps stalled at the same step in an earlier attempt too "
                f"({expected:.2g} expected by chance){lost}: the cause travels with the data position or the code, not with a node or a disk"
            ),
            evidence={
                "recurring": len(self.matched),
                "stalls_now": stalls,
                "stalls_before": then,
                "shared_records": records,
                "expected_by_chance": round(expected, 4),
                "probability": probability,
                "steps": self.matched[-20:],
                "rules_out": ["a node", "a disk"],
                "window": [self.matched[0] - int(100 * self.pace.stride), step],
            },
        )
