"""What else moved when a run slowed down: compute, clocks, data wait, disk latency. The evidence for a cause, and against one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from holter_monitor.stream.steps import Sample, Step

COMPUTE = "compute_seconds"
WAIT = "data_wait_seconds"
CLOCK = "gpu_sm_clock_hertz"
LATENCY = "host_disk_read_latency_seconds"
FOLLOWED = (COMPUTE, CLOCK)
LEAST_LATENCY = 0.002
"""Seconds. A disk that answers sooner holds up nobody, however many times its usual microseconds it takes: it counts as answering within this."""


@dataclass(slots=True)
class Usual:
    """A metric's usual value (slow mean, not moved by outliers) and its latest one."""

    level: float
    last: float
    worst: float
    """The latest extreme ratio to the level, fading: a pause's cause is still there when the pause is reported."""

    def learn(self, value: float) -> None:
        self.last = value
        if self.level > 0.0:
            ratio = value / self.level
            self.worst = ratio if abs(ratio - 1.0) > abs(self.worst - 1.0) else self.worst + 0.05 * (ratio - self.worst)
            value = min(max(value, 0.5 * self.level), 2.0 * self.level)
        self.level += 0.01 * (value - self.level)


@dataclass(kw_only=True)
class Surroundings:
    """Keeps what is usual for the signals that explain a slow step."""

    usual: dict[str, Usual] = field(default_factory=dict)
    waiting: tuple[int, int] | None = None
    """At the newest stall: how many ranks waited for data for most of it, of how many that tell their wait."""

    def observe(self, step: Step) -> None:
        for metric in FOLLOWED:
            value = step.mean(metric)
            if value is not None and value > 0.0:
                self._learn(metric, value)

    def stall(self, step: Step, lost: float, usual_wait: float) -> None:
        """Looks at who waits while the run stalls: one rank's loader, one node's disk, or all at once. `lost`: seconds of this step."""
        column = step.column(WAIT)
        if column is not None and len(step.ranks) > 1 and lost > 0.0:
            waits = column[0][column[1] & np.isfinite(column[0])]
            self.waiting = (int((waits - usual_wait > 0.5 * lost).sum()), len(waits)) if len(waits) else None

    def sample(self, sample: Sample) -> None:
        for name, value in sample.values.items():
            if name.startswith(LATENCY) and value > 0.0:
                self._learn(f"{name}@{sample.node}", max(value, LEAST_LATENCY))

    def _learn(self, name: str, value: float) -> None:
        known = self.usual.get(name)
        if known is None:
            if len(self.usual) < 4096:
                self.usual[name] = Usual(value, value, 1.0)
        else:
            known.learn(value)

    def evidence(self) -> tuple[dict[str, Any], list[str]]:
        """`(numbers for the evidence, half sentences for the summary)`."""
        numbers: dict[str, Any] = {}
        said: list[str] = []
        clock = self.usual.get(CLOCK)
        if clock is not None:
            numbers["clock_ratio"] = round(clock.worst, 3)
            said.append("clocks normal" if clock.worst > 0.95 else f"SM clocks at {clock.worst:.0%} of usual")
        compute = self.usual.get(COMPUTE)
        if compute is not None:
            numbers["compute_ratio"] = round(compute.worst, 3)
            said.append("compute time normal" if compute.worst < 1.1 else f"compute time x{compute.worst:.1f}")
        if self.waiting is not None:
            many, ranks = self.waiting
            numbers["waiting_ranks"], numbers["waiting_ranks_share"] = many, round(many / ranks, 4)
            if many:
                said.append(
                    f"all {ranks} ranks wait for data at once" if many >= 0.95 * ranks else f"{many} of {ranks} ranks wait for data"
                )
        latencies = [(usual.worst, name) for name, usual in self.usual.items() if name.startswith(LATENCY)]
        if latencies:
            worst, name = max(latencies)
            numbers["disk_read_latency_ratio"] = round(worst, 2)
            device, _, node = name.removeprefix(LATENCY + ".").partition("@")
            if worst > 3.0:
                numbers["disk"] = f"{device} on {node}"
                raised = sum(1 for ratio, _ in latencies if ratio > 3.0)
                said.append(f"disk read latency x{worst:.0f} ({device}, {raised} of {len(latencies)} hosts' devices)")
            else:
                said.append("disk latency normal")
        return numbers, said
