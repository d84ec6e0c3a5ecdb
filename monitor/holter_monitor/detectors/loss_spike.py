"""A loss that jumps: isolated, recovering, staying up or running away, told apart as the following steps come in."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import exp, hypot, isfinite, log, sqrt
from typing import ClassVar

from holter_monitor.findings import Finding, Severity
from holter_monitor.stats import Drift, RobustLevel, log_or_none, median
from holter_monitor.stream.rises import Front, Rise, Trail
from holter_monitor.stream.steps import Step

EXCUSES = frozenset({"restart", "data_stage_change", "batch_size_change", "seq_len_change", "lr_change", "stage"})


@dataclass(kw_only=True)
class LossSpike:
    """A spike is kept out of the level, so what follows is judged by the calm before it.

    Rule, on log(loss) against the median of the last 64 steps, any of:
    one step that stands `threshold` tails above it (the tail is the run's own: heavy-tailed losses do not warn);
    one that stands up a little together with a jump of the gradient norm;
    one and its wake: a spike of the optimisation takes some steps to come back, a hard batch leaves the next step untouched;
    a fading mean over 4 or 16 steps that stands out among such means.
    When isolated single steps have become a habit of the run (a loss of one micro-batch), a further one warns only with a wake, a gradient
    jump or an unusual height. `critical`: still up after `patience_steps` without falling, or climbing on before it has come back.
    Sources: OLMo-core's 6 sigma over 128, practitioners' robust z of log(loss) and co-spike rule; wake and habit are ours.
    """

    kind: ClassVar[str] = "loss_spike"
    threshold: float = 9.0
    """Tails above the level that make a single step a spike."""
    threshold_alone: float = 12.0
    """The same where the gradient norm is known and did not move: then it was the data."""
    joint: float = 11.0
    """Tails of loss and gradient norm together, each at least `joint_least`."""
    joint_least: float = 4.5
    front: tuple[float, float] = (4.5, 3.0)
    """Sigmas and tails of a step that is a spike if it leaves a wake: two to five steps after it that stand out together,"""
    wake: float = 3.3
    """their sum in tails of such a sum, and"""
    in_all: float = 6.0
    """front and wake together (the root of their squares)."""
    rise: float = 0.04
    """The least rise of log(loss): below it nobody acts."""
    rise_alone: float = 0.1
    """The same for a single step: one that leaves no wake has harmed nothing, and below a tenth nobody looks."""
    drift: float = 6.5
    """Spreads that a fading mean over some steps must stand out."""
    warmup_steps: int = 50
    """Steps learned before judging."""
    patience_steps: int = 50
    """Steps a spike may take before it must have begun to fall."""
    habit_count: int = 3
    """So many isolated single steps are the run's habit: it has shown that it comes out of them unharmed, however long ago that was."""

    level: RobustLevel = field(init=False, default_factory=RobustLevel)
    grad: RobustLevel = field(init=False, default_factory=RobustLevel)
    short: Drift = field(init=False, default_factory=lambda: Drift(4))
    long: Drift = field(init=False, default_factory=lambda: Drift(16))
    fronts: list[Front] = field(init=False, default_factory=list)
    """Steps that stood up, at most five steps ago."""
    held: list[float] = field(init=False, default_factory=list)
    """What is learned when no front is left: a spike's steps never are."""
    current: Rise | None = field(init=False, default=None)
    habit: deque[float] = field(init=False, default_factory=lambda: deque(maxlen=8))
    """How high the last isolated steps stood up, in tails."""
    is_linear: bool = field(init=False, default=False)
    said: deque[int] = field(init=False, default_factory=lambda: deque(maxlen=8))
    """Onsets of the spikes said last: a rewind goes before the first of a series."""
    trail: Trail = field(init=False, default_factory=Trail)
    last: int = field(init=False, default=-1)

    def observe(self, step: Step) -> Finding | None:
        height = self._height(step.mean("loss"))
        if height is None:
            return None
        jump = self._grad_jump(step)
        reached, self.last = self.last, step.number
        if step.number < reached or (step.words and step.words & EXCUSES):
            ended = self._begin_elsewhere(step, max(reached, step.number))
            if ended is not None:
                return ended
        if not self.level.knows(self.warmup_steps):
            self.level.learn(height)
            return None
        if self.current is not None:
            return self._follow(self.current, step, height)
        if self.trail.wants(step.number):
            self.trail.keep(step.number, self.level.level)
        return self._watch(step, height, jump)

    def _begin_elsewhere(self, step: Step, reached: int) -> Finding | None:
        """After a declared change the loss has a level yet to be learned; after a rewind the one that it had there before."""
        rise, there = self.current, self.trail.rewind(step.number) if step.number < reached else None
        self._start_over()
        how = "rewound"
        if step.words & EXCUSES:
            how = "begun anew" if "restart" in step.words else "changed"
            if "restart" in step.words:  # another model: its spread, too, is its own
                self.level.clear()
                self.grad.clear()
        elif there is not None:
            self.level.relevel(there)
        return self._say(rise, reached, rise.severity, how, is_over=True) if rise is not None and rise.said else None

    def _height(self, value: float | None) -> float | None:
        """log of the loss; the loss itself from the first one that is not positive (a bound, a reward, a log-likelihood)."""
        if value is None or not isfinite(value):
            return None
        if value <= 0.0 and not self.is_linear:
            self.is_linear = True
            self.level.clear()
            self._start_over()
        return value if self.is_linear else log(value)

    def _value(self, height: float) -> float:
        return height if self.is_linear else exp(min(700.0, height))

    def _least(self, rise: float) -> float:
        """The least rise that anybody would act on."""
        return rise * (abs(self.level.level) if self.is_linear else 1.0)

    def _watch(self, step: Step, height: float, jump: float | None) -> Finding | None:
        (sigma, tail), stands = self.level.scales(), height - self.level.level
        sigmas, score = stands / sigma, stands / tail
        short, long = self.short.push(sigmas), self.long.push(sigmas)
        drifts = short if short > long else long
        if stands > 0.0 and stands > self._least(self.rise_alone):
            together = jump is not None and min(score, jump) > self.joint_least and score + jump > self.joint
            threshold = self.threshold_alone if jump is not None and jump < 1.5 else self.threshold
            if score > threshold or together:
                return self._begin(step, step.number, [height], is_plain=not together and self._is_habit(score))
        if drifts > self.drift and score > 1.0 and stands > self._least(self.rise):
            return self._begin(step, step.number, [height], is_plain=False)
        if self.fronts:
            self.fronts = [front for front in self.fronts if front.follow(height)]
            for front in self.fronts:
                if self._is_wake(front):
                    return self._begin(step, front.step, front.heights, is_plain=False)
        if stands > self.front[0] * sigma:
            if score > self.front[1] and stands > self._least(self.rise):
                self.fronts.append(Front(step.number, sigmas, self.level.level, tail, [height]))
            height = self.level.level + self.front[0] * sigma
        if self.fronts:
            self.held.append(height)
        else:
            self._learn(height)
        return None

    def _learn(self, height: float) -> None:
        if self.held:
            for known in self.held:
                self.level.learn(known)
            self.held = []
        self.level.learn(height)

    def _is_wake(self, front: Front) -> bool:
        count = len(front.heights) - 1
        wake = front.wake / sqrt(count)
        return count > 1 and wake > self.wake and hypot(front.sigmas, wake) > self.in_all

    def _grad_jump(self, step: Step) -> float | None:
        """Tails that the gradient norm stands above its level; None while that is not known."""
        size = log_or_none(step.mean("grad_norm"))
        if size is None:
            return None
        if not self.grad.knows(self.warmup_steps):
            self.grad.learn(size)
            return None
        level, (_, tail) = self.grad.level, self.grad.scales()
        most = level + 6.0 * tail
        self.grad.learn(size if size < most else most)
        return (size - level) / tail

    def _start_over(self) -> None:
        self.level.relevel()
        self._forget()
        self.current = None

    def _forget(self) -> None:
        self.short.reset()
        self.long.reset()
        self.fronts, self.held = [], []

    def _begin(self, step: Step, onset: int, heights: list[float], *, is_plain: bool) -> Finding | None:
        self.current = rise = Rise(
            onset=onset,
            level=self.level.level,
            scale=self.level.sigma,
            tail=self.level.tail,
            peak=max(heights),
            steps=len(heights),
            last_up=len(heights),
        )
        rise.recent.extend(heights)
        self._forget()
        return None if is_plain else self._say(rise, step.number, Severity.WARNING, "rising")

    def _is_habit(self, score: float) -> bool:
        return len(self.habit) >= self.habit_count and score < 1.5 * max(self.habit)

    def _follow(self, rise: Rise, step: Step, height: float) -> Finding | None:
        if self._rises_again(rise, height):
            if height <= rise.peak:
                return self._begin(step, step.number, [height], is_plain=False)
            if rise.severity < Severity.CRITICAL:  # it climbs on before it has come back
                rise.peak = height
                return self._say(rise, step.number, Severity.CRITICAL, "diverging")
        rise.steps += 1
        rise.recent.append(height)
        deviations = (height - rise.level) / rise.scale
        if deviations > min(3.0, 0.4 * (rise.peak - rise.level) / rise.scale):
            rise.low, rise.last_up = 0, rise.steps
            rise.peak = max(rise.peak, height)
            if not rise.said:
                return self._say(rise, step.number, Severity.WARNING, "rising")
        else:
            rise.low += 1
            if rise.low >= 3:
                return self._end(rise, step, height)
        if len(rise.recent) == 16:
            middle = median(rise.recent)
            rise.crest = max(rise.crest, middle)
            has_fallen = middle - rise.level < 0.88 * (rise.crest - rise.level)
            if rise.steps == self.patience_steps and not has_fallen and rise.severity < Severity.CRITICAL:
                return self._say(rise, step.number, Severity.CRITICAL, "shifting")
        if rise.steps >= 8 * self.patience_steps:
            finding = self._say(rise, step.number, rise.severity, "settled higher", is_over=True)
            self._start_over()
            return finding
        return None

    @staticmethod
    def _rises_again(rise: Rise, height: float) -> bool:
        """A second spike before the first has come back."""
        if rise.steps < 6:
            return False
        latest = max(list(rise.recent)[-3:])
        return height - latest > max(6.0 * rise.scale, 0.5 * (rise.peak - rise.level))

    def _end(self, rise: Rise, step: Step, height: float) -> Finding | None:
        self.current = None
        self.level.learn(height)
        if rise.last_up == 1:
            self.habit.append((rise.peak - rise.level) / rise.tail)
        if not rise.said:
            return None
        return self._say(rise, step.number, rise.severity, "isolated" if rise.last_up <= 2 else "recovered", is_over=True)

    def _say(self, rise: Rise, number: int, severity: Severity, shape: str, *, is_over: bool = False) -> Finding:
        if not rise.said:
            self.said.append(rise.onset)
        rise.said, rise.severity = True, severity
        peak, level = self._value(rise.peak), self._value(rise.level)
        score = (rise.peak - rise.level) / rise.scale
        return Finding(
            kind=self.kind,
            severity=severity,
            onset_step=rise.onset,
            detected_step=number,
            end_step=number if is_over else None,
            metric="loss",
            score=score,
            summary=f"loss rose from {level:.4g} to {peak:.4g} at step {rise.onset} ({score:.0f} deviations), {shape}",
            evidence={
                "shape": shape,
                "peak": peak,
                "level": level,
                "deviations": score,
                "steps_up": rise.last_up,
                "rewind_to": min([rise.onset, *(at for at in self.said if at > rise.onset - 2 * self.patience_steps)]) - 1,
                "skip": [rise.onset, number],
                "precursors": [at for at in self.said if at < rise.onset],
                "window": [rise.onset - 50, number],
            },
        )
