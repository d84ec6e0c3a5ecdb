"""A loss that came back from a restart at another height: measured against the same steps before it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import exp, expm1, log, sqrt
from typing import ClassVar

from holter_monitor.findings import Finding, Severity
from holter_monitor.stats import RobustLevel, spread_of_steps
from holter_monitor.stream.beginning import replayed_since
from holter_monitor.stream.steps import Point, Step

BLOCK = 8


@dataclass(slots=True, kw_only=True)
class Trial:
    """The comparison after one restart."""

    onset: int
    differences: list[float] = field(default_factory=list)
    said: bool = False


@dataclass(kw_only=True)
class LossShift:
    """After a resume, declared or not, the loss must go on where it was: at the same step, or, without overlap, where it stopped.

    Rule: means of 8 values of log(loss) after the restart minus the earlier mean at the same step; after n of them (at most `blocks`) their
    mean must stay below `deviations` of its error, from the spread between neighbouring means. A replay of the same data has no difference.
    `critical`: still more than `critical_rise` higher at the end. Only a rise is said.
    A loss that replays the run's beginning while the steps go on (`stream/beginning.py`) is said at once, `critical`: what was learned is gone.
    """

    kind: ClassVar[str] = "loss_shift"
    metric: ClassVar[str] = "loss"
    deviations: float = 5.0
    rise: float = 0.012
    """The least rise of log(loss)."""
    critical_rise: float = 0.1
    blocks: int = 20
    """Blocks of 8 compared after a restart."""

    level: RobustLevel = field(init=False, default_factory=RobustLevel)
    history: deque[tuple[int, int, float]] = field(init=False, default_factory=lambda: deque(maxlen=256))
    """First step, last step and mean of each block, oldest first."""
    block: list[tuple[int, float]] = field(init=False, default_factory=list)
    before: list[tuple[int, int, float]] = field(init=False, default_factory=list)
    """The history as it was at the restart."""
    trial: Trial | None = field(init=False, default=None)

    def update(self, point: Point) -> Finding | None:
        if point.words - {"checkpoint", "eval"}:
            self._turn(point)
        if point.value <= 0.0:
            return None
        height = log(point.value)
        if self.level.knows(50):
            height = min(height, self.level.level + 5.0 * self.level.tail) if self.trial is None else height
        self.level.learn(height)
        self.block.append((point.step, height))
        if len(self.block) < BLOCK:
            return None
        mean = sum(value for _, value in self.block) / BLOCK
        entry = (self.block[0][0], self.block[-1][0], mean)
        self.block = []
        self.history.append(entry)
        return self._compare(self.trial, entry, point) if self.trial is not None else None

    def observe(self, step: Step) -> Finding | None:
        onset = replayed_since(step)
        now = step.mean("loss")
        old = [mean for _, last, mean in self.before if onset is not None and last < onset]
        if onset is None or now is None or not old:
            return None
        before = exp(old[-1])
        return Finding(
            kind=self.kind,
            severity=Severity.CRITICAL,
            onset_step=onset,
            detected_step=step.number,
            metric=self.metric,
            score=log(now / before),
            summary=f"since step {onset} the loss replays the run's beginning (it was {before:.4g}, now {now:.4g}): the weights are new",
            evidence={"after": "start", "level": before, "now": now, "rewind_to": onset - 1, "window": [onset - 100, step.number]},
        )

    def _turn(self, point: Point) -> None:
        self.block = []
        if "restart" in point.words:
            self.trial = None
            self.before = list(self.history)
            self.history.clear()
            self.level.clear()
        elif "resume" in point.words and len(self.history) >= 8:
            self.before = list(self.history)
            self.trial = Trial(onset=point.step)
            while self.history and self.history[-1][1] >= point.step:
                self.history.pop()
        elif point.words & {"data_stage_change", "batch_size_change", "seq_len_change", "lr_change", "stage"}:
            self.trial = None
            self.history.clear()

    def _compare(self, trial: Trial, entry: tuple[int, int, float], point: Point) -> Finding | None:
        trial.differences.append(entry[2] - self._expected(entry))
        count = len(trial.differences)
        shift = sum(trial.differences) / count
        spread = max(spread_of_steps([mean for _, _, mean in self.before]), 1e-5)
        error = sqrt(2.0) * spread / sqrt(count)
        finding = None
        if not trial.said and count >= 2 and shift > max(self.deviations * error, self.rise) and min(trial.differences[-2:]) > 0:
            trial.said = True
            finding = self._say(trial, point, shift, error, Severity.WARNING)
        if count >= self.blocks:
            self.trial = None
            late = sum(trial.differences[-4:]) / 4
            if trial.said:
                if late > max(self.critical_rise, 4 * spread):
                    finding = self._say(trial, point, late, spread / sqrt(2.0), Severity.CRITICAL)
                elif late < 0.3 * shift or late < 2 * spread:
                    finding = self._say(trial, point, late, error, Severity.WARNING, is_over=True)
        return finding

    def _expected(self, entry: tuple[int, int, float]) -> float:
        """What the loss was at these steps; where the run had not been yet, what it was at the end."""
        middle = (entry[0] + entry[1]) / 2
        seen = [mean for first, last, mean in self.before if first <= entry[1] and last >= entry[0]]
        if seen:
            return sum(seen) / len(seen)
        if middle > self.before[-1][1]:
            tail = sorted(mean for _, _, mean in self.before[-8:])
            return tail[len(tail) // 2]
        return min(self.before, key=lambda known: abs((known[0] + known[1]) / 2 - middle))[2]

    def _say(self, trial: Trial, point: Point, shift: float, error: float, severity: Severity, *, is_over: bool = False) -> Finding:
        percent = expm1(min(shift, 50.0))
        return Finding(
            kind=self.kind,
            severity=severity,
            onset_step=trial.onset,
            detected_step=point.step,
            end_step=point.step if is_over else None,
            metric=self.metric,
            score=shift / error,
            summary=f"after the restart at step {trial.onset} the loss stands {percent:+.1%} against the same steps before",
            evidence={
                "after": "resume",
                "shift_ratio": percent,
                "deviations": shift / error,
                "blocks": len(trial.differences),
                "window": [trial.onset - 100, point.step],
            },
        )
