"""A GPU that holds its clock down: too hot, short of power, or braked by the board, while the others run at full speed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.ranks import by_node, named
from holter_monitor.stream.steps import Step

REASONS = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
    0x100: "display clocks",
}
"""NVML's clocks event reasons (nvml.h, nvmlClocksEventReason*)."""
FAULTS = 0x8 | 0x20 | 0x40 | 0x80
"""Reasons that a healthy GPU under load does not give. A power cap is normal at full load."""
CLOCK, MASK, TEMPERATURE, POWER = "gpu_sm_clock_hertz", "gpu_throttle_reasons", "gpu_temperature_celsius", "gpu_power_watts"


@dataclass(slots=True)
class Throttled:
    onset: int
    ranks: list[int]
    node: str
    ratio: float
    reasons: int
    celsius: float
    watts: float
    lost: float = 0.0
    said_ratio: float = 1.0


@dataclass(kw_only=True)
class GpuThrottle:
    """SM clock against the fleet's median at the same step, with NVML's reasons; sustained, since every GPU dips now and then.

    A GPU counts as throttled when its clock is `least_loss` below the fleet's and a fault reason is set, or `sole_loss` below without any reason
    known, for `sustained_seconds` and `sustained_steps`. Temperature alone alarms nobody: 85 °C rules fire daily (user_demands.md, 9).
    Cost: 0.4 ms a step for 16,384 ranks. State: 20 bytes a rank.
    """

    kind: ClassVar[str] = "gpu_throttle"
    least_loss: float = 0.03
    sole_loss: float = 0.10
    sustained_seconds: float = 20.0
    sustained_steps: int = 10
    max_share: float = 0.5
    """More of the fleet than this is a power cap or a clock setting: one finding for the run."""
    since_step: NDArray[np.int64] = field(init=False, default_factory=lambda: np.empty(0, np.int64))
    """Step at which each rank's present spell began; -1 outside one."""
    since_time: NDArray[np.float64] = field(init=False, default_factory=lambda: np.empty(0))
    spell: NDArray[np.int32] = field(init=False, default_factory=lambda: np.empty(0, np.int32))
    """Steps of the present spell; negative: calm steps since the last one."""
    usual: float = field(init=False, default=0.0)
    """The clock that the fleet usually runs at: the yardstick of a single GPU."""
    open: dict[str, Throttled] = field(init=False, default_factory=dict)
    attempt: str = field(init=False, default="")
    step: int = field(init=False, default=0)

    def observe(self, step: Step) -> list[Finding] | None:
        column = step.column(CLOCK)
        if column is None:
            return None
        self.step = step.number
        said: list[Finding] = []
        if step.attempt != self.attempt or len(self.spell) != len(step.ranks):
            said = [self._finding(scope, hot, step.number, end_step=max(step.number, hot.onset)) for scope, hot in self.open.items()]
            self.attempt, self.open = step.attempt, {}
            self.since_step, self.since_time = np.full(len(step.ranks), -1), np.zeros(len(step.ranks))
            self.spell = np.zeros(len(step.ranks), np.int32)
        clocks = np.where(column[1] & (column[0] > 0.0) & (column[0] < 1e12), column[0], np.nan)
        if np.isnan(clocks).all():
            return said or None
        ratios = clocks / self._yardstick(clocks)
        reasons = self._reasons(step)
        faulty = (reasons & FAULTS) != 0
        with np.errstate(invalid="ignore"):
            low = ((ratios < 1.0 - self.least_loss) & faulty) | (
                (ratios < 1.0 - self.sole_loss) & ((reasons & ~0x4) == 0) & ~self._idle(step)
            )
        self._count(low, step)
        proven = low & (self.spell >= self.sustained_steps) & (step.time - self.since_time >= self.sustained_seconds)
        if self.open:
            said += self._follow(step, ratios, reasons)
        if proven.any():
            said += self._begin([int(place) for place in np.flatnonzero(proven)], step, ratios, reasons)
        return said or None

    def finish(self) -> list[Finding]:
        return [self._finding(scope, hot, self.step) for scope, hot in self.open.items()]

    def _yardstick(self, clocks: NDArray[np.float64]) -> float:
        middle = float(np.nanmedian(clocks))
        if len(clocks) >= 4:
            return middle
        self.usual = max(middle, self.usual + 0.001 * (middle - self.usual))
        return self.usual

    def _reasons(self, step: Step) -> NDArray[np.int64]:
        column = step.column(MASK)
        if column is None:
            return np.zeros(len(step.ranks), np.int64)
        return np.where(column[1] & (column[0] >= 0.0) & (column[0] < 2**53), column[0], 0.0).astype(np.int64)

    def _idle(self, step: Step) -> NDArray[np.bool_]:
        """A GPU that has nothing to do clocks down by design."""
        column = step.column("gpu_utilization_ratio")
        idle = np.zeros(len(step.ranks), np.bool_)
        if column is not None:
            idle = column[1] & (column[0] < 0.3)
        return idle

    def _count(self, low: NDArray[np.bool_], step: Step) -> None:
        begins = low & (self.spell <= 0)
        self.since_step[begins] = step.number
        self.since_time[begins] = step.time
        self.spell = np.where(low, np.maximum(self.spell, 0) + 1, np.minimum(self.spell, 0) - 1).clip(-1000, 1_000_000).astype(np.int32)

    def _begin(self, places: list[int], step: Step, ratios: NDArray[np.float64], reasons: NDArray[np.int64]) -> list[Finding]:
        known = {rank for hot in self.open.values() for rank in hot.ranks}
        fresh = [place for place in places if place not in known]
        if not fresh:
            return []
        said = []
        if len(places) > self.max_share * len(self.spell) and len(self.spell) > 1:
            scopes: dict[str, tuple[list[int], str]] = {"run": (places, "")}
        else:
            nodes, single = by_node(places, step.topology)
            scopes = {f"node {node}": (ranks, node) for node, ranks in nodes.items()} | {f"rank {rank}": ([rank], "") for rank in single}
        for scope, (ranks, node) in scopes.items():
            if scope in self.open or not set(ranks) & set(fresh):
                continue
            for old in [old for old, hot in self.open.items() if set(hot.ranks) <= set(ranks)]:
                said.append(self._finding(old, self.open.pop(old), step.number, end_step=step.number))
            onset = int(min(self.since_step[rank] for rank in ranks))
            mask = int(np.bitwise_or.reduce(reasons[ranks]))
            where = node or ("" if scope == "run" else (step.topology.nodes(ranks) or ("",))[0])
            self.open[scope] = hot = Throttled(
                onset, ranks, where, float(np.nanmin(ratios[ranks])), mask, _worst(step, TEMPERATURE, ranks), _worst(step, POWER, ranks)
            )
            hot.said_ratio = hot.ratio
            said.append(self._finding(scope, hot, step.number))
        return said

    def _follow(self, step: Step, ratios: NDArray[np.float64], reasons: NDArray[np.int64]) -> list[Finding]:
        said = []
        compute = step.median("compute_seconds") or 0.0
        for scope, hot in list(self.open.items()):
            now = float(np.nanmin(ratios[hot.ranks])) if not np.isnan(ratios[hot.ranks]).all() else 1.0
            hot.lost += max(0.0, 1.0 / max(now, 0.05) - 1.0) * compute
            hot.reasons |= int(np.bitwise_or.reduce(reasons[hot.ranks]))
            hot.celsius = max(hot.celsius, _worst(step, TEMPERATURE, hot.ranks))
            if (self.spell[hot.ranks] <= -3 * self.sustained_steps).all():
                del self.open[scope]
                said.append(self._finding(scope, hot, step.number, end_step=max(hot.onset, step.number - 3 * self.sustained_steps)))
            elif now < hot.said_ratio - 0.1:
                hot.ratio = hot.said_ratio = now
                said.append(self._finding(scope, hot, step.number))
        return said

    def _finding(self, scope: str, hot: Throttled, step: int, *, end_step: int | None = None) -> Finding:
        why = [name for bit, name in REASONS.items() if hot.reasons & bit and bit & (FAULTS | 0x4)]
        who = "most GPUs" if scope == "run" else f"node {hot.node} ({named(hot.ranks)})" if scope.startswith("node ") else named(hot.ranks)
        place = f" on {hot.node}" if hot.node and scope.startswith("rank ") else ""
        heat = f", {hot.celsius:.0f} °C" if hot.celsius else ""
        reason = ", ".join(why) if why else "no reason given by the driver"
        return Finding(
            kind=self.kind,
            severity=Severity.WARNING,
            scope=scope,
            onset_step=hot.onset,
            detected_step=max(step, hot.onset),
            end_step=end_step,
            metric=CLOCK,
            ranks=tuple(hot.ranks) if scope != "run" else (),
            nodes=(hot.node,) if hot.node else (),
            score=(1.0 - hot.ratio) / self.least_loss,
            cost_seconds=hot.lost or None,
            summary=f"SM clock of {who}{place} {1.0 - hot.ratio:.0%} below {'its usual' if len(self.spell) < 4 else 'the fleet'} since step {hot.onset}: "
            f"{reason}{heat}; drain it and run dcgmi diag -r 3",
            evidence=self._evidence(hot, why, step),
        )

    def _evidence(self, hot: Throttled, why: list[str], step: int) -> dict[str, Any]:
        return {
            "cause": "throttle",
            "clock_ratio": round(hot.ratio, 4),
            "reasons": why,
            "reason_mask": hot.reasons,
            "celsius": hot.celsius or None,
            "watts": hot.watts or None,
            "window": [hot.onset - 100, max(step, hot.onset)],
        }


def _worst(step: Step, metric: str, ranks: list[int]) -> float:
    """The largest value over these ranks; 0.0 where nobody logged it."""
    column = step.column(metric)
    if column is None:
        return 0.0
    values = column[0][ranks][column[1][ranks] & np.isfinite(column[0][ranks])]
    return float(values.max()) if len(values) else 0.0
