"""A run that becomes slower and slower: the level rises with the step, too gently for any single step to show it."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import expm1
from typing import ClassVar

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.levels import Levels
from holter_monitor.stream.pace import REBASES, SHARED, Pace
from holter_monitor.stream.steps import Step


@dataclass(slots=True)
class Slope:
    onset: int
    first: float
    """The level (logarithm) at which it was first said."""
    said: float
    worst: float
    seconds: float = 0.0
    waited: float = 0.0
    has_seconds: bool = False


@dataclass(kw_only=True)
class ThroughputDecline:
    """Block medians against the run's own best level. A rise that is mostly one jump, or that one jump fits better than a
    slope, is a drop and not said here: what declines after it is held against the level that it fell to. Cost: about 3 µs a record."""

    kind: ClassVar[str] = "throughput_decline"
    least_rise: float = 0.05
    """Rise of the cost (logarithm) over the run's best level that is worth a word."""
    pace: Pace = field(init=False, default_factory=Pace, metadata=SHARED)
    levels: Levels = field(init=False, default_factory=Levels)
    slope: Slope | None = field(init=False, default=None)

    def observe(self, step: Step) -> Finding | None:
        ended = self._end(step.number) if step.words & REBASES else None
        if step.words & REBASES:
            self.levels.clear()
        beat = self.pace.observe(step)
        if beat is None:
            return ended
        completed = self.levels.push(beat)
        slope = self.slope
        if slope is None:
            return self._begin(beat.step) if completed else ended
        if beat.stall is None and beat.seconds is not None:
            slope.has_seconds = True
            slope.seconds += beat.took * (1.0 - self.levels.base / beat.cost)
            slope.waited += max(0.0, beat.wait - self.pace.wait_level) * beat.steps
        return self._follow(slope, beat.step) if completed else ended

    def finish(self) -> Finding | None:
        return self._finding(self.slope, self.pace.last_step) if self.slope else None

    def _threshold(self) -> float:
        return max(self.least_rise, 5.0 * self.levels.noise(self.pace.scale))

    def _begin(self, step: int) -> Finding | None:
        threshold, rise = self._threshold(), self.levels.rise
        blocks = list(self.levels.medians)
        if self.levels.best is None or rise <= threshold or min(blocks[-5:]) - self.levels.best < 0.6 * threshold:
            self.levels.settle()
            return None
        height, at = self.levels.jump()
        if height > 0.55 * rise or not self.levels.is_slope():
            if len(blocks) - at >= 5:
                self.levels.take_base()
            return None
        self.slope = Slope(self._onset(blocks, self.levels.best, threshold), rise, rise, rise)
        return self._finding(self.slope, step)

    def _onset(self, blocks: list[float], best: float, threshold: float) -> int:
        """The first step after the last block that stood near the base."""
        near = [i for i, block in enumerate(blocks) if block - best < 0.2 * threshold]
        return self.levels.starts[min(near[-1] + 1, len(blocks) - 1)] if near else self.levels.starts[0]

    def _follow(self, slope: Slope, step: int) -> Finding | None:
        rise = self.levels.rise
        slope.worst = max(slope.worst, rise)
        if max(list(self.levels.medians)[-5:]) - (self.levels.best or 0.0) < 0.5 * self._threshold():
            return self._end(step)
        if rise < 1.5 * slope.said:
            return None
        slope.said = rise
        return self._finding(slope, step)

    def _end(self, step: int) -> Finding | None:
        slope, self.slope = self.slope, None
        return self._finding(slope, step, end_step=step) if slope else None

    def _finding(self, slope: Slope, step: int, *, end_step: int | None = None) -> Finding:
        rise = self.levels.rise if end_step is None else slope.worst
        cost = max(0.0, slope.seconds) if slope.has_seconds else None
        seconds = f", {cost:,.0f} s lost so far" if cost and cost > 0.0 else ""
        waited = slope.waited / cost if cost and cost > 0.0 and self.pace.wait_level > 0.0 else None
        why = f"; data wait explains {min(1.0, waited):.0%}" if waited is not None else ""
        return Finding(
            kind=self.kind,
            severity=Severity.WARNING,
            onset_step=slope.onset,
            detected_step=step,
            end_step=end_step,
            metric=self.pace.basis,
            score=rise / self.least_rise,
            cost_seconds=cost,
            summary=f"steps have become {expm1(rise):.1%} slower since step {slope.onset}, gradually{seconds}{why}",
            evidence={
                "base_ratio": 1.0,
                "level_ratio": round(expm1(rise) + 1.0, 4),
                "largest_jump": round(self.levels.jump()[0], 4) if len(self.levels.medians) > 3 else None,
                "blocks": [round(block - (self.levels.best or 0.0), 4) for block in list(self.levels.medians)[-24:]],
                "data_wait_share": round(min(1.0, waited), 3) if waited is not None else None,
                "window": [slope.onset - int(100 * self.pace.stride), step],
            },
        )
