"""Time lost against the run's own base: by a level that fell at once, or by stalls that the median does not show."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import exp
from typing import Any, ClassVar

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.levels import Levels
from holter_monitor.stream.pace import REBASES, Beat, Pace, Stall
from holter_monitor.stream.steps import Sample, Step
from holter_monitor.stream.surroundings import Surroundings


@dataclass(slots=True)
class Loss:
    """An open drop: what it has cost since its onset."""

    onset: int
    first_record: int
    severity: Severity
    base: float
    shape: str
    """"stalls" or "level"."""
    is_confirmed: bool
    before: float
    """What the run had spent until the onset, same units as `spent`."""
    spent: float = 0.0
    """Cost of all records since the onset, regular pauses left out."""
    ideal: float = 0.0
    """What they would have cost at the base."""
    seconds: float = 0.0
    has_seconds: bool = False
    waited: float = 0.0
    """Seconds of the loss that were spent waiting for data."""
    stalls: int = 0
    last_bad: int = 0
    said_record: int = 0
    said_share: float = 0.0

    @property
    def recent_share(self) -> float:
        """Part of the wall time since the onset that was lost."""
        return max(0.0, 1.0 - self.ideal / self.spent) if self.spent else 0.0

    @property
    def share(self) -> float:
        """Part of the run's whole wall time that was lost since the onset."""
        return max(0.0, (self.spent - self.ideal) / (self.spent + self.before)) if self.spent else 0.0

    def add(self, beat: Beat, stride: float, waited: float) -> None:
        self.spent += beat.cost
        self.ideal += self.base
        if beat.seconds is not None:
            self.has_seconds = True
            self.seconds += beat.seconds * (1.0 - self.base / beat.cost) * stride
        self.waited += waited


@dataclass(kw_only=True)
class ThroughputDrop:
    """The harmonic mean of throughput, i.e. the mean cost of a unit of work, over a window, against the base; and the level in blocks.

    One or two stalls that carry the loss may be the first checkpoint as well as the first of many: said as `info` where a checkpoint or an
    evaluation would fall (a round step, the first steps of a run), as `warning` elsewhere, and over when they turn out to be regular. `warning`
    when the loss is confirmed (stalls that no regularity explains, or a level), `critical` when a third of the time is lost and goes on being lost.
    Rule: 5 % of the window as in the harmonic rule of reference/detectors.md. Cost: about 4 µs a record.
    """

    kind: ClassVar[str] = "throughput_drop"
    time_loss: float = 0.05
    """Share of the window's time that must be lost to stalls."""
    level_loss: float = 0.03
    """Rise of the cost's level that counts as a drop, where the run is calm enough to tell."""
    page_loss: float = 0.30
    """Share of the time whose loss is worth waking somebody."""
    window_records: int = 200
    calm_records: int = 300
    """Records without an unexplained stall after which the loss has passed."""
    lone_records: int = 200
    """Calm records that make a first long stall remarkable."""
    pace: Pace = field(init=False, default_factory=Pace)
    levels: Levels = field(init=False, default_factory=Levels)
    surroundings: Surroundings = field(init=False, default_factory=Surroundings)
    loss: Loss | None = field(init=False, default=None)
    spent: float = field(init=False, default=0.0)
    """Cost of all records so far."""
    recent: deque[float] = field(init=False, default_factory=lambda: deque(maxlen=200))
    """Costs of the last records in units of the base, while a loss is open."""

    def observe(self, step: Step) -> list[Finding] | None:
        said = self._rebase(step) if step.words & REBASES else None
        self.surroundings.observe(step)
        beat = self.pace.observe(step)
        if beat is None:
            return said
        completed = self.levels.push(beat)
        self.spent += beat.cost
        if self.loss is None:
            if completed:
                self.levels.settle()
            if not completed and beat.stall is None:
                return said
            begun = self._begin(beat, completed=completed)
            return [*(said or []), begun] if begun else said
        followed = self._follow(beat, completed=completed)
        return [*(said or []), followed] if followed else said

    def sample(self, sample: Sample) -> None:
        self.surroundings.sample(sample)

    def finish(self) -> Finding | None:
        if self.loss is None or self.loss.severity == Severity.INFO:
            return None
        return self._finding(self.loss, self.pace.last_step)

    def _rebase(self, step: Step) -> list[Finding] | None:
        """A declared change of what a step costs ends the comparison with the old base."""
        loss, self.loss = self.loss, None
        self.levels.clear()
        return [self._finding(loss, step.number, end_step=step.number)] if loss else None

    def _stall_loss(self) -> tuple[float, bool]:
        """`(share of the window's time lost to open stalls, whether it is confirmed)`.

        Confirmed: the loss stays without its four largest stalls (two unlearned regular pauses have shown themselves twice by then), or
        three long stalls stand within eight records, which no regular pause does.
        """
        stalls = self.pace.open_stalls(self.window_records)
        records = min(self.window_records, max(100, self.pace.records))
        excess = sorted((stall.ratio - 1.0 for stall in stalls), reverse=True)
        lost, rest = sum(excess), sum(excess[4:])
        burst = [s.ratio - 1.0 for s in stalls if s.record > self.pace.records - 8 and s.ratio > 3.0]
        confirmed = rest / (records + rest) >= self.time_loss or (len(burst) >= 3 and sum(burst) / records >= 0.6 * self.time_loss)
        return lost / (records + lost), confirmed

    def _level_step(self) -> int | None:
        """The step since which the level is down for good, if it fell at once; None otherwise."""
        rise = self.levels.rise
        if rise <= max(self.level_loss, 5.0 * self.levels.noise(self.pace.scale)):
            return None
        height, at = self.levels.jump()
        return at if height > max(0.55 * rise, 0.8 * self.level_loss) else None

    def _begin(self, beat: Beat, *, completed: bool) -> Finding | None:
        level_step = self._level_step() if completed else None
        if level_step is not None:
            records = int((beat.step - level_step) / max(self.pace.stride, 1e-9)) + 1
            self._open(beat, level_step, records, "level", is_confirmed=True)
        elif beat.stall is not None and not beat.stall.excused:
            share, confirmed = self._stall_loss()
            if share < self.time_loss:
                return None
            first = self.pace.open_stalls(self.window_records)[-1]
            self._open(beat, first.step, self.pace.records - first.record + 1, "stalls", is_confirmed=confirmed)
        if self.loss is None:
            return None
        return self._say(self.loss, beat.step)

    def _is_remarkable(self, stall: Stall) -> bool:
        """Whether a first stall here is more than a run's first regular pause would be: late, off the round steps, and unlike any before."""
        every = 25 if self.pace.stride <= 5.0 else int(10 * self.pace.stride)
        is_round = any(min(stall.step % length, length - stall.step % length) <= 1 for length in (every, 64))
        size = 1.0 + 0.4 * (stall.ratio - 1.0)
        alike = sum(1 for other in self.pace.stalls if other.ratio > size and not other.excused)
        return not is_round and self.pace.records >= self.lone_records and alike == 1 and self.pace.worst_pause < size

    def _open(self, beat: Beat, onset: int, records: int, shape: str, *, is_confirmed: bool) -> None:
        base = self.levels.base or self.pace.level
        severity = Severity.WARNING if is_confirmed else Severity.INFO
        loss = Loss(onset, self.pace.records - records + 1, severity, base, shape, is_confirmed, self.spent, last_bad=beat.step)
        stalls = self.pace.open_stalls(records)
        quiet = self._level_now() if shape == "level" else base
        loss.ideal = base * records
        loss.spent = quiet * (records - len(stalls)) + sum(stall.ratio * self.pace.level for stall in stalls)
        loss.before = max(0.0, self.spent - loss.spent)
        loss.stalls = len(stalls)
        loss.waited = sum(stall.wait for stall in stalls)
        if beat.seconds is not None:
            loss.has_seconds = True
            loss.seconds = (loss.spent - loss.ideal) * beat.seconds / beat.cost * self.pace.stride
        self.loss = loss
        self.recent.clear()

    def _level_now(self) -> float:
        """The cost at the newest block's level, quicker than the pace's own level."""
        return exp(self.levels.medians[-1]) if self.levels.medians else self.pace.level

    def _follow(self, beat: Beat, *, completed: bool) -> Finding | None:
        loss = self.loss
        assert loss is not None
        stall = beat.stall
        if stall is None or not stall.excused:
            loss.add(beat, self.pace.stride, stall.wait if stall else 0.0)
            self.recent.append(beat.cost / loss.base)
        worsened = False
        if stall is not None and not stall.excused:
            loss.stalls += 1
            loss.last_bad = beat.step
            if not loss.is_confirmed:
                worsened = self._stall_loss()[1]
        if completed:
            if self.levels.rise > max(0.5 * self.level_loss, 2.5 * self.levels.noise(self.pace.scale)):
                loss.last_bad = beat.step
            if not loss.is_confirmed and self._level_step() is not None:
                worsened, loss.shape = True, "level"
            if self._has_passed(loss):
                self.loss = None
                self.levels.settle()
                return self._finding(loss, beat.step, end_step=loss.last_bad)
            if loss.is_confirmed and loss.severity == Severity.WARNING and self._pages(loss):
                loss.severity = Severity.CRITICAL
                return self._say(loss, beat.step)
        if worsened:
            loss.severity, loss.is_confirmed = Severity.WARNING, True
        elif loss.severity == Severity.INFO and self.pace.records == loss.first_record + 1:
            # With the record after it, so that a level that fell is not taken for a stall.
            stalls = self.pace.open_stalls(2)
            if len(stalls) == 1 and self._is_remarkable(stalls[0]):
                loss.severity = Severity.WARNING
                return self._say(loss, beat.step)
        grown = loss.share > 1.3 * loss.said_share + 0.02 or self.pace.records - loss.said_record >= 1000
        if worsened or (grown and loss.is_confirmed and self.pace.records - loss.said_record >= 50):
            return self._say(loss, beat.step)
        return None

    def _has_passed(self, loss: Loss) -> bool:
        records = self.calm_records if loss.shape == "stalls" else 100
        calm = self.pace.last_step - loss.last_bad >= records * self.pace.stride
        excused = not loss.is_confirmed and not self.pace.open_stalls(self.window_records)
        return excused or (calm and self._stall_loss()[0] < self.time_loss)

    def _pages(self, loss: Loss) -> bool:
        if len(self.recent) < self.window_records or loss.recent_share < self.page_loss:
            return False
        return 1.0 - len(self.recent) / sum(self.recent) >= self.page_loss

    def _say(self, loss: Loss, step: int) -> Finding:
        loss.said_record, loss.said_share = self.pace.records, loss.share
        return self._finding(loss, step)

    def _finding(self, loss: Loss, step: int, *, end_step: int | None = None) -> Finding:
        numbers, said = self.surroundings.evidence()
        if loss.has_seconds and loss.seconds > 0.0 and self.pace.wait_level > 0.0:
            numbers["data_wait_share"] = round(min(1.0, loss.waited / loss.seconds), 3)
            said.insert(0, f"data wait explains {numbers['data_wait_share']:.0%}")
        cost = max(0.0, loss.seconds) if loss.has_seconds else None
        return Finding(
            kind=self.kind,
            severity=loss.severity,
            onset_step=loss.onset,
            detected_step=step,
            end_step=end_step,
            metric=self.pace.basis,
            score=loss.recent_share / self.time_loss,
            cost_seconds=cost,
            summary=_sentence(loss, cost, said, self._level_now() / loss.base, end_step=end_step),
            evidence=self._evidence(loss, step) | numbers,
        )

    def _evidence(self, loss: Loss, step: int) -> dict[str, Any]:
        return {
            "shape": loss.shape,
            "base": _shown(loss.base, self.pace.basis),
            "level": _shown(self._level_now(), self.pace.basis),
            "level_ratio": round(self._level_now() / loss.base, 4),
            "share_lost": round(loss.share, 4),
            "share_lost_since_onset": round(loss.recent_share, 4),
            "stalls": loss.stalls,
            "periods": [[round(period.length, 1), round(period.ratio, 2)] for period in self.pace.periods],
            "window": [loss.onset - int(100 * self.pace.stride), step],
        }


def _shown(cost: float, basis: str) -> float:
    """A cost in the units of the metric it was taken from."""
    return cost if basis.endswith("seconds") or not cost else 1.0 / cost


def _sentence(loss: Loss, cost: float | None, said: list[str], level_ratio: float, *, end_step: int | None) -> str:
    when = f"since step {loss.onset}" if end_step is None else f"between steps {loss.onset} and {end_step}"
    share = f"{loss.share:.0%} of all wall time lost"
    if loss.shape == "level":
        seconds = f", {cost:,.0f} s lost" if cost is not None else f", {share}"
        slower = f"each step takes {level_ratio - 1.0:.1%} longer" if end_step is None else "each step took longer"
        return "; ".join([f"{slower} {when}{seconds}", *said])
    seconds = f" ({cost:,.0f} s)" if cost is not None else ""
    if loss.is_confirmed:
        how = f"{loss.stalls} stalled steps that no regular pause explains, the median is {level_ratio - 1.0:+.1%} off"
    elif end_step is not None:
        how = "over, or a regular pause after all"
    else:
        how = f"{loss.stalls} stalled step{'s' if loss.stalls > 1 else ''}, no regular pause is known here"
    return "; ".join([f"{share} {when}{seconds}: {how}", *said])
