"""Single steps that take far too long: several that no regularity explains, and more and more of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.pace import REBASES, SHARED, Pace, Stall
from holter_monitor.stream.steps import Sample, Step
from holter_monitor.stream.surroundings import Surroundings


@dataclass(slots=True)
class Spell:
    """An open time of stalls."""

    onset: int
    severity: Severity
    count: int
    seconds: float
    waited: float
    last: int
    last_record: int
    said_count: int
    first_record: int


@dataclass(kw_only=True)
class ThroughputStalls:
    """Judges only what is neither declared nor part of a learned period; a lone slow step is `throughput_drop`'s. Cost: about 3 µs a record."""

    kind: ClassVar[str] = "throughput_stalls"
    time_loss: float = 0.05
    """Share of the window's time lost to stalls, its four largest ones left out, that makes a spell."""
    window_records: int = 200
    quiet_records: int = 300
    """Records without a stall after which a spell is over."""
    pace: Pace = field(init=False, default_factory=Pace, metadata=SHARED)
    surroundings: Surroundings = field(init=False, default_factory=Surroundings)
    spell: Spell | None = field(init=False, default=None)

    def observe(self, step: Step) -> Finding | None:
        if step.words & REBASES and self.spell is not None:
            return self._end()
        self.surroundings.observe(step)
        beat = self.pace.observe(step)
        if beat is None:
            return None
        stall = beat.stall
        if stall is not None and beat.seconds is not None:
            self.surroundings.stall(step, beat.seconds * (1.0 - 1.0 / beat.ratio), self.pace.wait_level)
        if self.spell is not None and beat.forgiven:
            self._forgive(self.spell, beat.forgiven)
        if stall is None or stall.excused:
            if self.spell is not None and self.pace.records % 20 == 0 and self._is_quiet(self.spell):
                return self._end()
            return None
        return self._begin(stall) if self.spell is None else self._go_on(self.spell, stall)

    def sample(self, sample: Sample) -> None:
        self.surroundings.sample(sample)

    def finish(self) -> Finding | None:
        return self._finding(self.spell, self.pace.last_step) if self.spell is not None else None

    def _begin(self, stall: Stall) -> Finding | None:
        stalls = self.pace.open_stalls(self.window_records)
        records = min(self.window_records, max(100, self.pace.records))
        rest = sum(sorted((s.ratio - 1.0 for s in stalls), reverse=True)[4:])
        if rest / (records + rest) >= self.time_loss or self.pace.burst() / records >= 0.6 * self.time_loss:
            first = stalls[-1]
            self.spell = Spell(first.step, Severity.WARNING, len(stalls), 0.0, 0.0, stall.step, stall.record, len(stalls), first.record)
            self.spell.seconds, self.spell.waited = sum(s.seconds for s in stalls), sum(s.wait for s in stalls)
            return self._finding(self.spell, stall.step)
        return None

    def _go_on(self, spell: Spell, stall: Stall) -> Finding | None:
        spell.count += 1
        spell.seconds += stall.seconds
        spell.waited += stall.wait
        spell.last, spell.last_record = stall.step, stall.record
        if spell.count < 2 * spell.said_count:
            return None
        spell.said_count = spell.count
        return self._finding(spell, stall.step)

    def _is_quiet(self, spell: Spell) -> bool:
        return self.pace.records - spell.last_record >= self.quiet_records

    @staticmethod
    def _forgive(spell: Spell, stalls: tuple[Stall, ...]) -> None:
        """What turned out to be a regular pause was no loss."""
        for stall in stalls:
            if stall.record >= spell.first_record:
                spell.count -= 1
                spell.seconds -= stall.seconds
                spell.waited -= stall.wait

    def _end(self) -> Finding | None:
        spell, self.spell = self.spell, None
        return self._finding(spell, self.pace.last_step, end_step=spell.last) if spell else None

    def _finding(self, spell: Spell, step: int, *, end_step: int | None = None) -> Finding:
        numbers, said = self.surroundings.evidence()
        cost = spell.seconds or None
        if cost and self.pace.wait_level > 0.0:
            numbers["data_wait_share"] = round(min(1.0, spell.waited / cost), 3)
            said.insert(0, f"data wait explains {numbers['data_wait_share']:.0%}")
        worst = max((stall.ratio for stall in self.pace.stalls if stall.step >= spell.onset), default=0.0)
        lost = f", {cost:,.0f} s lost" if cost else ""
        summary = (
            f"{spell.count} stalled steps between {spell.onset} and {spell.last}, up to {worst:.0f} times as long{lost}; no regular pause"
        )
        return Finding(
            kind=self.kind,
            severity=spell.severity,
            onset_step=spell.onset,
            detected_step=step,
            end_step=end_step,
            metric=self.pace.basis,
            score=worst,
            cost_seconds=cost,
            summary="; ".join([summary, *said]),
            evidence=self._evidence(spell, worst, step) | numbers,
        )

    def _evidence(self, spell: Spell, worst: float, step: int) -> dict[str, Any]:
        return {
            "stalls": spell.count,
            "worst_ratio": round(worst, 2),
            "steps": [s.step for s in self.pace.stalls if s.step >= spell.onset and not s.excused][-20:],
            "records": self.pace.records - spell.first_record + 1,
            "periods": [[round(period.length, 1), round(period.ratio, 2)] for period in self.pace.periods],
            "window": [spell.onset - int(100 * self.pace.stride), step],
        }
