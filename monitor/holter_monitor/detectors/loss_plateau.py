"""A loss that fell and, from one point on, falls no more: frozen weights, a dead optimiser, a lost learning rate."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp, log, sqrt
from typing import ClassVar

from holter_monitor.findings import Finding, Severity
from holter_monitor.stats import RobustLevel, median, spread_of_steps
from holter_monitor.stream.steps import Step

EXCUSES = frozenset({"restart", "data_stage_change", "batch_size_change", "seq_len_change", "lr_change", "stage"})
MOST = 64


@dataclass(kw_only=True)
class LossPlateau:
    """Learning curves fall about as much in each doubling of their length; a fall that stops short of that has a knee.

    The whole history is kept as 32 to 64 means of equal length (neighbours merge when they are 64). For a knee at a half, a third and a
    quarter of the history, the fall over the second half before it, carried on with log(time), tells what should have come after it. Rule: it
    brought less than `share` of that, where the fall before the knee is `deviations` of its error and `fall` was to be expected.
    A decayed learning rate excuses.
    """

    kind: ClassVar[str] = "loss_plateau"
    share: float = 0.12
    deviations: float = 6.0
    fall: float = 0.03
    """The least expected fall of log(loss)."""
    bend: float = 1 / 3
    """The part of that fall that the last quarter before the knee must still have brought (0.44 of a fall with log(time)): what is frozen was
    falling until then, what is learned out had slowed."""
    flat: float = 0.006
    """What log(loss) may still fall and be called flat; more where its means are noisier."""
    warmup_steps: int = 100
    """Steps before a knee: what the first steps do is no learning curve yet (an eighth may be earlier: then much has followed)."""

    level: RobustLevel = field(init=False, default_factory=RobustLevel)
    means: list[float] = field(init=False, default_factory=list)
    starts: list[int] = field(init=False, default_factory=list)
    rates: list[float] = field(init=False, default_factory=list)
    """Learning rate at each block's start; 0.0 where it is not logged."""
    size: int = field(init=False, default=4)
    """Values in a block."""
    block: list[float] = field(init=False, default_factory=list)
    head: tuple[int, float] = field(init=False, default=(0, 0.0))
    onset: int | None = field(init=False, default=None)
    base: float = field(init=False, default=0.0)
    """log loss at the knee."""
    best: float | None = field(init=False, default=None)
    """log loss of the life before, if the loss went back to where it began: a spike that comes down to it is no knee."""
    earlier: list[tuple[int, float]] = field(init=False, default_factory=list)
    """The longest life before a restart: steps since its start, log loss."""

    def observe(self, step: Step) -> Finding | None:
        value = step.mean("loss")
        if step.words & EXCUSES:
            if "restart" in step.words:
                self._remember()
            self._start_over()
        if value is None or not 0.0 < value < float("inf"):
            return None
        height = log(value)
        if self.level.knows(30):
            reach = 5.0 * self.level.sigma
            height = max(self.level.level - reach, min(self.level.level + reach, height))
        self.level.learn(height)
        if not self.block:
            self.head = (step.number, step.mean("lr") or 0.0)
        self.block.append(height)
        if len(self.block) < self.size:
            return None
        self._close()
        return self._judge(step)

    def _remember(self) -> None:
        lived = [(start - self.starts[0], mean) for start, mean in zip(self.starts, self.means, strict=True)]
        if len(lived) >= 8 and (not self.earlier or lived[-1][0] > self.earlier[-1][0]):
            self.earlier = lived

    def _start_over(self) -> None:
        self.level.relevel()
        self.means, self.starts, self.rates, self.block, self.size = [], [], [], [], 4
        self.onset = self.best = None

    def _close(self) -> None:
        mean = sum(self.block) / len(self.block)
        self.block = []
        if len(self.means) > 8 and mean > self.means[0] - 0.2 * (self.means[0] - min(self.means)):
            best = min(self.means)  # back where it began: another model, or a tall spike
            self._start_over()
            self.best = best
        self.means.append(mean)
        self.starts.append(self.head[0])
        self.rates.append(self.head[1])
        if len(self.means) >= MOST:
            self.means = [(first + second) / 2 for first, second in zip(self.means[::2], self.means[1::2], strict=True)]
            self.starts, self.rates = self.starts[::2], self.rates[::2]
            self.size *= 2

    def _judge(self, step: Step) -> Finding | None:
        if self.onset is not None:
            return self._follow(step)
        lagging = self._lags(step, log(step.mean("loss") or 1.0))
        if lagging is not None:
            return lagging
        count = len(self.means)
        for part in (2, 3, 4, 8):
            knee = count // part
            if knee < (8 if part < 8 else 4) or count * self.size < self.warmup_steps * min(part, 3):
                continue
            if knee * self.size < self.warmup_steps and part < 8:
                continue
            bend = median(self.means[7 * knee // 8 : 9 * knee // 8 + 1])
            fallen = median(self.means[knee // 2 : 3 * knee // 4]) - bend
            expected = fallen / log(1.6) * log(count / knee)
            brought = bend - min(self._latest(), median(self.means[(knee + count) // 2 :]))
            error = spread_of_steps(self.means) * sqrt(6.0 / knee)
            is_due = fallen > self.deviations * error and expected > self.fall
            is_flat = abs(brought) < min(self.share * expected, max(self.flat, min(2.5 * error, 5 * self.flat)))
            is_even = max(self.means[knee + 1 :]) - bend < max(0.5 * fallen, 6.0 * error)
            is_bend = median(self.means[3 * knee // 4 : max(3 * knee // 4 + 1, 7 * knee // 8)]) - bend > self.bend * fallen
            is_new = min(self.means[: knee // 2]) - bend > 0.5 * fallen and (self.best is None or abs(bend - self.best) > 0.15)
            if is_due and is_flat and is_even and is_bend and is_new and not self._has_rate_decayed(knee):
                self.onset, self.base = self.starts[knee], bend
                return self._say(step, expected, brought, fallen / max(error, 1e-9))
        return None

    def _lags(self, step: Step, height: float) -> Finding | None:
        """Does this life stand where it began, and an earlier one of the same run had learned much at half its age?"""
        if not self.earlier or len(self.means) < 8 or len(self.means) * self.size < self.warmup_steps:
            return None
        half = (self.starts[-1] - self.starts[0]) / 2
        then = [mean for age, mean in self.earlier if age <= half]
        ahead = self.means[0] - then[-1]
        error = spread_of_steps(self.means)
        behind = self._latest() - then[-1]
        is_falling = min(height, self._latest()) < self.means[len(self.means) // 2] - self.share * ahead
        if is_falling or behind < max(0.5 * ahead, self.deviations * error, 0.1):
            return None
        self.onset, self.base = self.starts[0], self._latest()
        return self._say(step, ahead, ahead - behind, behind / max(error, 1e-9))

    def _follow(self, step: Step) -> Finding | None:
        fallen = self.base - self._latest()
        if fallen < 2.0 * self.fall:
            return None
        finding = self._say(step, 0.0, fallen, 0.0, is_over=True)
        self.onset = None
        return finding

    def _latest(self) -> float:
        return median(self.means[-max(3, len(self.means) // 8) :])

    def _has_rate_decayed(self, knee: int) -> bool:
        return 0.0 < self.rates[-1] < 0.5 * self.rates[3 * knee // 4]

    def _say(self, step: Step, expected: float, brought: float, score: float, *, is_over: bool = False) -> Finding:
        assert self.onset is not None
        level = exp(self.means[-1])
        said = "falls again" if is_over else f"fell {brought:.1%} since, {expected:.1%} was to be expected"
        return Finding(
            kind=self.kind,
            severity=Severity.WARNING,
            onset_step=self.onset,
            detected_step=step.number,
            end_step=step.number if is_over else None,
            metric="loss",
            score=score,
            summary=f"loss stands at {level:.4g} since step {self.onset}: {said}",
            evidence={"level": level, "expected_fall": expected, "fall": brought, "window": [self.starts[0], step.number]},
        )
