"""Time lost against the run's own base: by a level that fell at once, by stalls that the median does not show, or by one step alone."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import exp, log
from typing import Any, ClassVar

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.levels import Levels
from holter_monitor.stream.lone_steps import is_lone, is_odd
from holter_monitor.stream.lost_time import Loss, Toll, usual_wait
from holter_monitor.stream.pace import REBASES, SHARED, Beat, Pace, Stall
from holter_monitor.stream.steps import Sample, Step
from holter_monitor.stream.surroundings import Surroundings


@dataclass(kw_only=True)
class ThroughputDrop:
    """The harmonic mean of throughput, i.e. the mean cost of a unit of work, over a window, against the base; and the level in blocks.

    One or two stalls that carry the loss may be the first checkpoint as well as the first of many: said as `info` where a checkpoint or an
    evaluation would fall (a round step, the first steps of a run), as `warning` elsewhere, and over when they turn out to be regular. `warning`
    when the loss is confirmed (stalls that no regularity explains, or a level) or a lone step is new in a calm run, `critical` when a third of
    the time is lost and goes on being lost.
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
    lone_ratio: float = 2.0
    """Times the level from which a step alone is told, though it costs little: half the throughput, as in reference/detectors.md."""
    lone_steps: int = 600
    """Steps without anything of its size before a lone one warns; earlier it may be the first regular pause and is only recorded."""
    pace: Pace = field(init=False, default_factory=Pace, metadata=SHARED)
    levels: Levels = field(init=False, default_factory=Levels)
    surroundings: Surroundings = field(init=False, default_factory=Surroundings)
    losses: dict[str, Loss] = field(init=False, default_factory=dict)
    """Open, by shape: "stalls", "level". A level that falls while stalls are told of is another trouble, with a base and an end of its own."""
    spent: float = field(init=False, default=0.0)
    """Cost of all records so far."""
    block: Toll | None = field(init=False, default=None)
    """What the records of the block in progress took."""
    blocks: deque[Toll] = field(init=False, default_factory=lambda: deque(maxlen=128))
    """What the blocks took whose levels `levels` keeps."""

    def observe(self, step: Step) -> list[Finding] | None:
        said = self._rebase(step) if step.words & REBASES else []
        self.surroundings.observe(step)
        if "resume" in step.words:
            self._cut()
        beat = self.pace.observe(step)
        if beat is None:
            return said or None
        if beat.stall is not None and beat.seconds is not None:
            self.surroundings.stall(step, beat.seconds * (1.0 - 1.0 / beat.ratio), self.pace.wait_level)
        completed = self._take(beat)
        if completed and (self.levels.best is None or not self.losses):
            self.levels.settle()
        open_before = tuple(self.losses.values())
        for loss in open_before:
            said += self._follow(loss, beat, completed=completed)
        if (completed or (beat.stall is not None and not open_before)) and "level" not in self.losses:
            said += self._begin(beat, completed=completed)
        return said or None

    def sample(self, sample: Sample) -> None:
        self.surroundings.sample(sample)

    def finish(self) -> list[Finding]:
        return [self._finding(loss, self.pace.last_step) for loss in self.losses.values() if loss.severity > Severity.INFO]

    def _take(self, beat: Beat) -> bool:
        """Takes a record in; True when it completed a block."""
        completed = self.levels.push(beat)
        self.spent += beat.cost
        if self.block is None:
            self.block = Toll(beat.step, beat.record)
        self.block.add(beat)
        if completed:
            self.blocks.append(self.block)
            self.block = None
        return completed

    def _cut(self) -> None:
        """A block does not reach over a restart: what fell with it began with it."""
        self.levels.records.clear()
        self.block = None

    def _rebase(self, step: Step) -> list[Finding]:
        """A declared change of what a step costs ends the comparison with the old base."""
        ended = [self._finding(loss, step.number, end_step=step.number) for loss in self.losses.values()]
        self.losses.clear()
        self.levels.clear()
        self.blocks.clear()
        self.block = None
        return ended

    def _stall_loss(self) -> tuple[float, bool]:
        """`(share of the window's time lost to open stalls, whether it is confirmed)`.

        Confirmed: the loss stays without its four largest stalls (two unlearned regular pauses have shown themselves twice by then), or
        they stand together, which no regular pause does.
        """
        stalls = self.pace.open_stalls(self.window_records)
        records = min(self.window_records, max(100, self.pace.records))
        excess = sorted((stall.ratio - 1.0 for stall in stalls), reverse=True)
        lost, rest = sum(excess), sum(excess[4:])
        confirmed = rest / (records + rest) >= self.time_loss or self.pace.burst() / records >= 0.6 * self.time_loss
        return lost / (records + lost), confirmed

    def _fallen(self) -> int | None:
        """The place of the block since which the level is down for good, if it fell at once; None otherwise."""
        rise = self.levels.rise
        if rise <= max(self.level_loss, 5.0 * self.levels.noise(self.pace.scale)):
            return None
        height, at = self.levels.jump()
        return at if height > max(0.55 * rise, 0.8 * self.level_loss) else None

    def _begin(self, beat: Beat, *, completed: bool) -> list[Finding]:
        stalls = self.losses.get("stalls")
        fallen = self._fallen() if completed else None
        if fallen is not None and (stalls is None or (stalls.is_confirmed and self.blocks[fallen].record > stalls.first_record)):
            return [self._open_level(beat, fallen, stalls)]
        if stalls is None and beat.stall is not None and not beat.stall.excused:
            share, confirmed = self._stall_loss()
            if share >= self.time_loss:
                return [self._open_stalls(beat, is_confirmed=confirmed)]
            if beat.stall.ratio >= self.lone_ratio and is_lone(self.pace, beat.stall):
                return [self._lone_step(beat, beat.stall)]
        return []

    def _lone_step(self, beat: Beat, stall: Stall) -> Finding:
        loss = self._loss(stall.step, stall.record, "step", list(self.blocks)[-8:])
        loss.severity = Severity.WARNING if is_lone(self.pace, stall, self.lone_steps) else Severity.INFO
        loss.before = self.spent - stall.cost
        loss.add_stall(stall)
        return self._finding(loss, beat.step, end_step=beat.step)

    def _open_level(self, beat: Beat, fallen: int, stalls: Loss | None) -> Finding:
        """Blocks tell what was lost since; what the stalls have counted of it already is theirs no more."""
        blocks = list(self.blocks)
        loss = self._loss(blocks[fallen].step, blocks[fallen].record, "level", blocks[max(0, fallen - 8) : fallen])
        loss.severity, loss.is_confirmed = Severity.WARNING, True
        for block, median in list(zip(blocks, self.levels.medians, strict=True))[fallen:]:
            if stalls is None:
                loss.add_whole(block)
            else:
                stalls.apart += loss.add_block(block, exp(median))
        return self._open(loss, beat)

    def _open_stalls(self, beat: Beat, *, is_confirmed: bool) -> Finding:
        """The records between the stalls so far were at the level: they lost nothing."""
        found = self.pace.open_stalls(self.window_records)
        loss = self._loss(found[-1].step, found[-1].record, "stalls", list(self.blocks)[-8:])
        is_loud = is_confirmed or (len(found) == 1 and is_lone(self.pace, found[0], self.lone_steps))
        loss.severity, loss.is_confirmed = Severity.WARNING if is_loud else Severity.INFO, is_confirmed
        for stall in found:
            loss.add_stall(stall)
        quiet = loss.base * max(0, beat.record - loss.first_record + 1 - len(found))
        loss.spent += quiet
        loss.ideal += quiet
        return self._open(loss, beat)

    def _loss(self, onset: int, record: int, shape: str, calm: list[Toll]) -> Loss:
        base = self.levels.base or self.pace.level
        return Loss(onset, record, Severity.INFO, base, shape, is_confirmed=False, before=0.0, usual_wait=usual_wait(calm))

    def _open(self, loss: Loss, beat: Beat) -> Finding:
        loss.before = max(0.0, self.spent - loss.spent)
        loss.last_bad, loss.bad_record = beat.step, beat.record
        self.losses[loss.shape] = loss
        return self._say(loss, beat.step)

    def _level_now(self) -> float:
        """The cost at the newest block's level, quicker than the pace's own level."""
        return exp(self.levels.medians[-1]) if self.levels.medians else self.pace.level

    def _follow(self, loss: Loss, beat: Beat, *, completed: bool) -> list[Finding]:
        stall = beat.stall
        self._count(loss, beat, completed=completed)
        worsened = False
        if stall is not None and not stall.excused:
            loss.stalls += 1
            if not self._stalls_are_told_apart_from(loss):
                loss.last_bad, loss.bad_record = beat.step, beat.record
            worsened = not loss.is_confirmed and self._stall_loss()[1]
        if completed:
            # What a run that has become faster still loses is told against its better pace.
            if self.levels.held < log(loss.base) - 0.01:
                loss.base = exp(self.levels.held)
            if not self._level_is_told_apart_from(loss) and self.levels.rise > max(
                0.5 * self.level_loss, 2.5 * self.levels.noise(self.pace.scale)
            ):
                loss.last_bad, loss.bad_record = beat.step, beat.record
            if not loss.is_confirmed and self._fallen() is not None:
                worsened, loss.shape = True, "level"
                self.losses = {"level": loss}
            if self._has_passed(loss):
                return [self._close(loss, beat.step)]
            if loss.is_confirmed and loss.severity == Severity.WARNING and self._pages(loss):
                loss.severity = Severity.CRITICAL
                return [self._say(loss, beat.step)]
        if worsened:
            loss.severity, loss.is_confirmed = Severity.WARNING, True
        elif loss.severity == Severity.INFO and beat.record == loss.first_record + 1:
            # With the record after it, so that a level that fell is not taken for a stall.
            stalls = self.pace.open_stalls(2)
            if len(stalls) == 1 and self.pace.records >= self.lone_records and is_odd(self.pace, stalls[0]):
                loss.severity = Severity.WARNING
                return [self._say(loss, beat.step)]
        grown = loss.share > 1.3 * loss.said_share + 0.02 or self.pace.records - loss.said_record >= 1000
        if worsened or (grown and loss.is_confirmed and self.pace.records - loss.said_record >= 50):
            return [self._say(loss, beat.step)]
        return []

    def _count(self, loss: Loss, beat: Beat, *, completed: bool) -> None:
        """Each second once: of a block in which stalls and the level both cost, the level has what its median stands above the base."""
        for stall in beat.forgiven:
            if stall.record >= loss.first_record and not self._stalls_are_told_apart_from(loss):
                loss.add_stall(stall, -1)
        if not self._stalls_are_told_apart_from(loss):
            if beat.stall is None or not beat.stall.excused:
                loss.add(beat)
        elif completed:
            self.losses["stalls"].apart += loss.add_block(self.blocks[-1], self._level_now())

    def _pages(self, loss: Loss) -> bool:
        """A level that fell pages for itself, not once more for the stalls before it."""
        return loss is list(self.losses.values())[-1] and loss.goes_on(self.window_records, self.page_loss)

    def _has_passed(self, loss: Loss) -> bool:
        records = self.calm_records if loss.shape == "stalls" else 100
        calm = self.pace.records - loss.bad_record >= records
        excused = not loss.is_confirmed and not self.pace.open_stalls(self.window_records)
        return excused or (calm and (self._stalls_are_told_apart_from(loss) or self._stall_loss()[0] < self.time_loss))

    def _stalls_are_told_apart_from(self, loss: Loss) -> bool:
        return loss.shape == "level" and "stalls" in self.losses

    def _level_is_told_apart_from(self, loss: Loss) -> bool:
        return loss.shape == "stalls" and "level" in self.losses

    def _close(self, loss: Loss, step: int) -> Finding:
        del self.losses[loss.shape]
        if not self.losses:
            self.levels.settle()
        return self._finding(loss, step, end_step=loss.last_bad)

    def _say(self, loss: Loss, step: int) -> Finding:
        loss.said_record, loss.said_share = self.pace.records, loss.share
        return self._finding(loss, step)

    def _finding(self, loss: Loss, step: int, *, end_step: int | None = None) -> Finding:
        numbers, said = self.surroundings.evidence()
        if loss.seconds > 0.0 and self.pace.wait_level > 0.0:
            numbers["data_wait_share"] = round(loss.wait_share, 3)
            said.insert(0, f"data wait explains {numbers['data_wait_share']:.0%}")
        return Finding(
            kind=self.kind,
            severity=loss.severity,
            onset_step=loss.onset,
            detected_step=max(step, loss.onset),
            end_step=end_step,
            metric=self.pace.basis,
            score=loss.recent_share / self.time_loss,
            cost_seconds=loss.cost_seconds,
            summary=loss.sentence(said, self._level_now() / loss.base, end_step),
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
            "told_apart_seconds": round(loss.apart, 3) if loss.apart else None,
            "stalls": loss.stalls,
            "periods": [[round(period.length, 1), round(period.ratio, 2)] for period in self.pace.periods],
            "window": [loss.onset - int(100 * self.pace.stride), step],
        }


def _shown(cost: float, basis: str) -> float:
    """A cost in the units of the metric it was taken from."""
    return cost if basis.endswith("seconds") or not cost else 1.0 / cost
