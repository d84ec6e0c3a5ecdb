"""A run that stalls more often than the run it is held against did at the same steps: what no trend within the run can show."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar

from holter_monitor.findings import Finding, Severity
from holter_monitor.reference import CELL_RECORDS, STALL_RATIO, Pacing, Reference
from holter_monitor.stream.pace import SHARED, Pace
from holter_monitor.stream.steps import RunFacts, Step


@dataclass(slots=True)
class Cell:
    """The reference's cell that the run is in, from the run's side."""

    place: int
    first: int
    records: int = 0
    stalls: int = 0
    lost: float = 0.0
    """Cost of the stalls beyond the level, in records at the level."""
    seconds: float = 0.0


@dataclass(kw_only=True)
class ReferencePace:
    """Stalls of the run against the reference's at equal steps: an exact binomial test over the last cells of both.

    The level itself is not compared: a reference may be smaller or on other hardware; stalls are counted against each run's own level. The Smol
    Training Playbook's loader was slow in proportion to the *configured* number of steps: flat within a run, 2.3 % against 0.8 % of the time
    between two of them. Declared and learned pauses of the run do not count. Needs `reference=` in `holter.init` or `holter scan --reference`.
    """

    kind: ClassVar[str] = "reference_gap"
    chance: float = 1e-5
    """Probability of so many more stalls below which they are none."""
    least_loss: float = 0.01
    """Share of the time that the run must lose to stalls beyond what the reference loses."""
    pace: Pace = field(init=False, default_factory=Pace, metadata=SHARED)
    reference: Reference | None = field(init=False, default=None)
    cell: Cell | None = field(init=False, default=None)
    cells: deque[Cell] = field(init=False, default_factory=lambda: deque(maxlen=32))
    onset: int | None = field(init=False, default=None)
    said: int = field(init=False, default=0)
    """Stalls when it was last told."""
    calm: int = field(init=False, default=0)

    def begin(self, run: RunFacts) -> None:
        self.reference = run.reference

    def observe(self, step: Step) -> Finding | None:
        if self.reference is None or self.reference.pacing is None:
            return None
        beat = self.pace.observe(step)
        place = self.reference.pacing.cell(step.number)
        ended = self._judge(self.reference.pacing, step.number) if self.cell is not None and place != self.cell.place else None
        if place < 0 or beat is None:
            return ended
        if self.cell is None:
            self.cell = Cell(place, step.number)
        self.cell.records += 1
        if beat.ratio > STALL_RATIO and beat.stall is not None and not beat.stall.excused:
            if not self.cell.stalls:
                self.cell.first = step.number
            self.cell.stalls += 1
            self.cell.lost += beat.ratio - 1.0
            self.cell.seconds += beat.stall.seconds
        return ended

    def _judge(self, pacing: Pacing, step: int) -> Finding | None:
        """The cell that has just ended; one that the two runs logged at very different strides is left out."""
        cell, self.cell = self.cell, None
        assert cell is not None
        theirs = int(pacing.edges[cell.place + 1] - pacing.edges[cell.place])
        if not 0.5 * theirs <= cell.records * self.pace.stride <= 2.0 * theirs:
            return None
        self.cells.append(cell)
        more, probability = self._compared(pacing)
        if self.onset is None:
            if probability > self.chance or more < self.least_loss:
                return None
            self.onset, self.said, self.calm = min(each.first for each in self.cells if each.stalls), self._stalls, 0
            return self._finding(pacing, step)
        self.calm = self.calm + 1 if cell.stalls <= pacing.stalls[cell.place] else 0
        if self.calm >= 8:
            finding = self._finding(pacing, step, end_step=step)
            self.onset = None
            self.cells.clear()
            return finding
        if self._stalls < 2 * self.said:
            return None
        self.said = self._stalls
        return self._finding(pacing, step)

    @property
    def _stalls(self) -> int:
        return sum(cell.stalls for cell in self.cells)

    def _compared(self, pacing: Pacing) -> tuple[float, float]:
        """`(share of the time lost beyond the reference's, probability of so many more stalls by chance)`."""
        mine, records = self._stalls, sum(cell.records for cell in self.cells)
        places = [cell.place for cell in self.cells]
        theirs, their_records = int(pacing.stalls[places].sum()), CELL_RECORDS * len(places)
        lost, their_lost = sum(cell.lost for cell in self.cells), float(pacing.lost[places].sum())
        more = lost / (records + lost) - their_lost / (their_records + their_lost)
        if mine + theirs == 0:
            return more, 1.0
        from scipy.stats import binomtest  # late: a quarter of the time that importing the collector took

        return more, float(binomtest(mine, mine + theirs, records / (records + their_records), alternative="greater").pvalue)

    def _finding(self, pacing: Pacing, step: int, *, end_step: int | None = None) -> Finding:
        assert self.reference is not None
        assert self.onset is not None
        more, probability = self._compared(pacing)
        theirs = int(pacing.stalls[[cell.place for cell in self.cells]].sum())
        return Finding(
            kind=self.kind,
            severity=Severity.WARNING,
            scope="stalls",
            onset_step=self.onset,
            detected_step=step,
            end_step=end_step,
            metric=self.pace.basis,
            score=more / self.least_loss,
            cost_seconds=sum(cell.seconds for cell in self.cells) or None,
            summary=f"{self._stalls} stalled steps where {self.reference.name} had {theirs} at the same steps: {more:.1%} more of the time is lost "
            f"since step {self.onset}; look at what differs between the two runs, not at the hardware that both used",
            evidence={
                "reference": self.reference.name,
                "stalls": self._stalls,
                "reference_stalls": theirs,
                "share_lost_beyond": round(more, 4),
                "probability": probability,
                "window": [self.onset, step],
            },
        )
