"""Disks that fill up, with the time at which they are full, and disks whose reads have become slow."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import log
from typing import ClassVar

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.steps import Sample, Step

FREE, LATENCY = "host_disk_free_bytes.", "host_disk_read_latency_seconds."
KEPT_SERIES = 4096


@dataclass(slots=True)
class Space:
    """Free bytes of one mount of one node, a point a minute; within the minute the lowest counts."""

    times: deque[float] = field(default_factory=lambda: deque(maxlen=60))
    free: deque[float] = field(default_factory=lambda: deque(maxlen=60))
    onset: int | None = None
    severity: Severity = Severity.INFO
    calm: int = 0


@dataclass(slots=True)
class Latency:
    """Read latency of one device of one node, logarithms."""

    level: float
    fast: float
    count: int = 1
    high_since: float | None = None
    is_high: bool = False


@dataclass(kw_only=True)
class DiskPressure:
    """Free space: Theil-Sen slope over the last hour (SciPy), so one deleted checkpoint bends nothing. Latency: against the device's own level.

    Cost: 5 µs a sample and mount, a slope (0.3 ms) a minute and mount that loses space.
    """

    kind: ClassVar[str] = "disk_pressure"
    warn_seconds: float = 6 * 3600.0
    """Time until a disk is full from which it is worth a word."""
    page_seconds: float = 3600.0
    least_bytes: float = 2e9
    """Free space below which a checkpoint no longer fits, whatever the trend."""
    slow_ratio: float = 5.0
    """Times its own level at which a device reads slowly …"""
    slow_seconds: float = 0.005
    """… and the latency below which nobody cares: caches make small numbers jump."""
    sustained_seconds: float = 120.0
    spaces: dict[str, Space] = field(init=False, default_factory=dict)
    latencies: dict[str, Latency] = field(init=False, default_factory=dict)
    step: int = field(init=False, default=0)
    slow: dict[str, int] = field(init=False, default_factory=dict)
    """Device -> onset of the finding that is open for it."""
    slow_nodes: dict[str, int] = field(init=False, default_factory=dict)
    """Device -> number of nodes when it was last said."""

    def observe(self, step: Step) -> None:
        self.step = step.number

    def sample(self, sample: Sample) -> list[Finding] | None:
        said: list[Finding] = []
        for name, value in sample.values.items():
            if name.startswith(FREE) and 0.0 <= value < 1e18:
                said += self._space(name.removeprefix(FREE), sample, value)
            elif name.startswith(LATENCY) and 0.0 < value < 1e6:
                said += self._latency(name.removeprefix(LATENCY), sample, value)
        return said or None

    def _space(self, mount: str, sample: Sample, free: float) -> list[Finding]:
        key = f"{mount}|{sample.node}"
        if key not in self.spaces and len(self.spaces) >= KEPT_SERIES:
            return []
        space = self.spaces.setdefault(key, Space())
        if space.times and sample.time - space.times[-1] < 60.0:
            space.free[-1] = min(space.free[-1], free)
            return []
        space.times.append(sample.time)
        space.free.append(free)
        return self._judge(space, mount, sample.node)

    def _judge(self, space: Space, mount: str, node: str) -> list[Finding]:
        left = self._seconds_left(space)
        free = space.free[-1]
        severity = Severity.INFO
        if free < self.least_bytes or left < self.page_seconds:
            severity = Severity.CRITICAL
        elif left < self.warn_seconds:
            severity = Severity.WARNING
        if severity == Severity.INFO:
            space.calm += 1
            if space.onset is None or space.calm < 10:
                return []
            finding = self._full(space, mount, node, left, is_over=True)
            space.onset, space.severity = None, Severity.INFO
            return [finding]
        space.calm = 0
        if severity <= space.severity and space.onset is not None:
            return []
        space.onset = self.step if space.onset is None else space.onset
        space.severity = max(severity, space.severity)
        return [self._full(space, mount, node, left, is_over=False)]

    def _seconds_left(self, space: Space) -> float:
        """Seconds until the disk is full at the last hour's rate; infinite where it does not fill."""
        half = len(space.free) // 2
        lowest_before = min(list(space.free)[:half], default=0.0)
        if len(space.free) < 30 or space.free[-1] >= lowest_before:  # what is written and deleted again reaches no new low
            return float("inf")
        start = space.times[0]
        from scipy.stats import theilslopes  # late: a quarter of the time that importing the collector took

        slope, _, _, steepest_up = theilslopes(list(space.free), [at - start for at in space.times], alpha=0.95)
        return space.free[-1] / -float(slope) if steepest_up < 0.0 else float("inf")

    def _full(self, space: Space, mount: str, node: str, left: float, *, is_over: bool) -> Finding:
        onset = space.onset if space.onset is not None else self.step
        when = f"; full in about {_duration(left)} at the last hour's rate" if left < 30 * 86_400 and not is_over else ""
        return Finding(
            kind=self.kind,
            severity=space.severity,
            scope=f"free space of {mount} on {node}",
            onset_step=onset,
            detected_step=max(self.step, onset),
            end_step=max(self.step, onset) if is_over else None,
            metric=FREE + mount,
            nodes=(node,),
            score=self.warn_seconds / max(left, 1.0),
            summary=f"{mount} on {node} has {space.free[-1] / 1e9:,.1f} GB free{when}{', it is no longer filling' if is_over else ''}",
            evidence={
                "free_bytes": space.free[-1],
                "seconds_left": round(left) if left < 1e9 else None,
                "window": [max(0, onset - 50), max(self.step, onset)],
            },
        )

    def _latency(self, device: str, sample: Sample, seconds: float) -> list[Finding]:
        key = f"{device}|{sample.node}"
        known = self.latencies.get(key)
        if known is None:
            if len(self.latencies) < KEPT_SERIES:
                self.latencies[key] = Latency(log(seconds), log(seconds))
            return []
        known.count += 1
        known.fast += 0.3 * (log(seconds) - known.fast)
        rise = known.fast - known.level
        is_slow = rise > log(self.slow_ratio) and known.fast > log(self.slow_seconds) and known.count > 20
        if not is_slow:
            known.level += (0.05 if known.count < 40 else 0.01) * min(rise, 0.7)
        known.high_since = (known.high_since or sample.time) if is_slow else None
        was = known.is_high
        known.is_high = known.high_since is not None and sample.time - known.high_since >= self.sustained_seconds
        return self._slow(device) if known.is_high != was else []

    def _slow(self, device: str) -> list[Finding]:
        """A device name that is slow on many nodes is one finding: the storage behind it."""
        of_device = {key.partition("|")[2]: known for key, known in self.latencies.items() if key.partition("|")[0] == device}
        slow = {node: known for node, known in of_device.items() if known.is_high}
        if slow and len(slow) < 2 * self.slow_nodes.get(device, 0):
            return []
        onset = self.slow.setdefault(device, self.step)
        if slow:
            self.slow_nodes[device] = len(slow)
        else:
            del self.slow[device]
            self.slow_nodes.pop(device, None)
        worst = max((known.fast - known.level for known in slow.values()), default=0.0)
        nodes = tuple(sorted(slow))[:256]
        where = nodes[0] if len(nodes) == 1 else f"{len(slow)} of {len(of_device)} nodes"
        milliseconds = max((2.718281828459045**known.fast for known in slow.values()), default=0.0) * 1e3
        return [
            Finding(
                kind=self.kind,
                severity=Severity.WARNING,
                scope=f"reads of {device}",
                onset_step=onset,
                detected_step=max(self.step, onset),
                end_step=None if slow else max(self.step, onset),
                metric=LATENCY + device,
                nodes=nodes,
                score=worst / log(self.slow_ratio),
                summary=f"reads from {device} take {2.718281828459045**worst:.0f} times as long as usual on {where} ({milliseconds:.0f} ms)"
                if slow
                else f"reads from {device} are as fast as usual again",
                evidence={
                    "latency_ratio": round(2.718281828459045**worst, 2),
                    "slow_nodes": len(slow),
                    "of_nodes": len(of_device),
                    "window": [max(0, onset - 50), max(self.step, onset)],
                },
            )
        ]


def _duration(seconds: float) -> str:
    if seconds < 5400.0:
        return f"{seconds / 60.0:.0f} min"
    return f"{seconds / 3600.0:.1f} h" if seconds < 172_800.0 else f"{seconds / 86_400.0:.0f} days"
