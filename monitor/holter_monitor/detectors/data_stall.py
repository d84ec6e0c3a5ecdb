"""The data loader holds the run up: its share of the step grows against the run's own base."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from holter_monitor.findings import Finding, Severity
from holter_monitor.stats import SortedWindow
from holter_monitor.stream.pace import PAUSES, REBASES
from holter_monitor.stream.steps import Step


@dataclass(slots=True)
class Wait:
    onset: int
    base: float
    said: float
    seconds: float = 0.0
    spent: float = 0.0
    worst: float = 0.0


@dataclass(kw_only=True)
class DataStall:
    """Median share of the step time spent in `data_wait_seconds` over a window, against the lowest it has been. Cost: about 2 µs a record.

    A share, not seconds: a larger batch makes both longer. The waiting of single steps is the stall detectors' matter.
    """

    kind: ClassVar[str] = "data_stall"
    window_records: int = 60
    growth: float = 2.2
    """Times its base that the share must reach …"""
    least_points: float = 0.025
    """… and how much of the step time it must have gained: below that nobody acts."""
    page_share: float = 0.5
    """Waiting for data more than working is worth waking somebody."""
    shares: SortedWindow = field(init=False, default_factory=lambda: SortedWindow(60))
    base: float | None = field(init=False, default=None)
    records: int = field(init=False, default=0)
    first_high: int | None = field(init=False, default=None)
    wait: Wait | None = field(init=False, default=None)
    last_step: int = field(init=False, default=-1)

    def observe(self, step: Step) -> Finding | None:
        if step.words:
            if step.words & REBASES:
                self.shares.clear()
                self.base = None
                return self._end(step.number)
            if step.words & PAUSES:
                return None
        waited, seconds = step.mean("data_wait_seconds"), step.mean("step_time_seconds")
        if waited is None or seconds is None or not 0.0 <= waited < float("inf") or not 0.0 < seconds < float("inf"):
            return None
        self.records += 1
        stride = max(1, step.number - self.last_step) if self.last_step >= 0 else 1
        self.last_step = step.number
        share = min(1.0, waited / seconds)
        if self.records > 12:
            self.shares.push(share)
        if self.wait is not None:
            self.wait.seconds += (waited - self.wait.base * seconds) * min(stride, 100)
            self.wait.spent += seconds * min(stride, 100)
        if len(self.shares) < self.window_records:
            return None
        if self.base is not None and share > self._limit(self.base):
            self.first_high = step.number if self.first_high is None else self.first_high
        elif self.base is not None and self.shares.median < 0.5 * (self.base + self._limit(self.base)):
            self.first_high = None
        return self._judge(step.number) if self.records % 20 == 0 else None

    def finish(self) -> Finding | None:
        return self._finding(self.wait, self.last_step) if self.wait else None

    def _limit(self, base: float) -> float:
        return max(self.growth * base, base + self.least_points)

    def _judge(self, step: int) -> Finding | None:
        share = self.shares.median
        if self.base is None:
            self.base = share
        if self.wait is None:
            if share <= self._limit(self.base):
                self.base = min(self.base, share)
                return None
            self.wait = Wait(self.first_high if self.first_high is not None else step, self.base, share, worst=share)
            return self._finding(self.wait, step)
        wait = self.wait
        wait.worst = max(wait.worst, share)
        if share < 0.5 * (wait.base + self._limit(wait.base)):
            return self._end(step)
        if share >= 1.5 * wait.said or (share >= self.page_share > wait.said):
            wait.said = share
            return self._finding(wait, step)
        return None

    def _end(self, step: int) -> Finding | None:
        wait, self.wait, self.first_high = self.wait, None, None
        return self._finding(wait, step, end_step=step) if wait else None

    def _finding(self, wait: Wait, step: int, *, end_step: int | None = None) -> Finding:
        share = wait.worst if end_step is not None or not len(self.shares) else self.shares.median
        return Finding(
            kind=self.kind,
            severity=Severity.CRITICAL if wait.worst >= self.page_share else Severity.WARNING,
            onset_step=wait.onset,
            detected_step=step,
            end_step=end_step,
            metric="data_wait_seconds",
            score=share / self._limit(wait.base),
            cost_seconds=max(0.0, wait.seconds),
            summary=(
                f"waiting for data takes {share:.0%} of each step since step {wait.onset}, {wait.base:.1%} before; {max(0.0, wait.seconds):,.0f} s lost"
            ),
            evidence={
                "share": round(share, 4),
                "base_share": round(wait.base, 4),
                "worst_share": round(wait.worst, 4),
                "window": [wait.onset - 100, step],
            },
        )
