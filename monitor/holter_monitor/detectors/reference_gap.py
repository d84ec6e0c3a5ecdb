"""A run that learns worse than the run it is held against: its loss at equal tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite, sqrt
from typing import ClassVar

import numpy as np

from holter_monitor.findings import Finding, Severity
from holter_monitor.reference import Reference, deviation
from holter_monitor.stream.odometer import Odometer
from holter_monitor.stream.steps import RunFacts, Step


@dataclass(kw_only=True)
class ReferenceGap:
    """A sequential test in cells of equal tokens.

    A cell is bad when the run's mean loss stands `deviations` standard errors and `gap` of the reference's own loss above it. One bad cell
    is nothing (another data order, another warm-up); `cells_in_row` of them are a finding, as many good ones end it. The rule found the
    Smol Training Playbook's tensor-parallel seed bug at 2.5B tokens of its published trace, where evaluations found it at 1T; it is
    silent on the repaired run. Needs `reference=` in `holter.init`, and `tokens` in `run.step` of both runs (else aligned by step).
    """

    kind: ClassVar[str] = "reference_gap"
    gap: float = 0.006
    """Relative; below it nobody acts, and a change of data order makes as much."""
    deviations: float = 3.0
    cells_in_row: int = 4
    min_records: int = 16
    """Fewer of the run's own records in a cell say nothing."""
    reference: Reference | None = field(init=False, default=None)
    place: Odometer = field(init=False, default_factory=Odometer)
    cell: int = field(init=False, default=-1)
    cell_step: int = field(init=False, default=0)
    losses: list[float] = field(init=False, default_factory=list)
    bad: list[tuple[int, float, float]] = field(init=False, default_factory=list)
    """(first step, gap, deviations) of the bad cells in a row."""
    good: int = field(init=False, default=0)
    onset: int | None = field(init=False, default=None)

    def begin(self, run: RunFacts) -> None:
        self.reference = run.reference

    def observe(self, step: Step) -> Finding | None:
        if self.reference is None:
            return None
        cell = self.reference.cell(self.place.take(step, self.reference.unit))
        said = self._judge(step) if cell != self.cell else None
        if cell != self.cell:
            self.cell, self.cell_step, self.losses = cell, step.number, []
        loss = step.mean("loss")
        if cell >= 0 and loss is not None and isfinite(loss):
            self.losses.append(loss)
        return said

    def _judge(self, step: Step) -> Finding | None:
        """The cell that has just ended."""
        if self.cell < 0 or len(self.losses) < self.min_records or self.reference is None:
            return None
        mine, theirs = float(np.mean(self.losses)), float(self.reference.means[self.cell])
        error = sqrt(float(deviation(np.asarray(self.losses))) ** 2 / len(self.losses) + float(self.reference.errors[self.cell]) ** 2)
        gap, score = (mine - theirs) / abs(theirs), (mine - theirs) / max(error, 1e-12)
        if gap <= self.gap or score <= self.deviations:
            return self._is_good(step)
        self.good = 0
        self.bad.append((self.cell_step, gap, score))
        if self.onset is None and len(self.bad) >= self.cells_in_row:
            self.onset = self.bad[-self.cells_in_row][0]
            return self._finding(step)
        del self.bad[: -self.cells_in_row]
        return None

    def _is_good(self, step: Step) -> Finding | None:
        self.good += 1
        if self.onset is None:
            self.bad.clear()
        elif self.good >= self.cells_in_row:
            said = self._finding(step, end_step=step.number)
            self.onset = None
            self.bad.clear()
            return said
        return None

    def _finding(self, step: Step, end_step: int | None = None) -> Finding:
        assert self.reference is not None
        assert self.onset is not None
        gap = float(np.mean([entry[1] for entry in self.bad]))
        least = min(entry[2] for entry in self.bad)
        since = f"{self.place.tokens / 1e9:.3g}B tokens" if self.reference.unit == "tokens" else f"step {step.number}"
        return Finding(
            kind=self.kind,
            severity=Severity.WARNING,
            onset_step=self.onset,
            detected_step=step.number,
            end_step=end_step,
            metric="loss",
            score=least,
            summary=f"loss is {gap:+.1%} against {self.reference.name} at equal {self.reference.unit}, "
            f"in {len(self.bad)} windows in a row, each over {least:.0f} standard errors (seen at {since})",
            evidence={
                "reference": self.reference.name,
                "aligned_by": self.reference.unit,
                "gaps": [entry[1] for entry in self.bad],
                "deviations": [entry[2] for entry in self.bad],
                "position": self.place.tokens if self.reference.unit == "tokens" else step.number,
                "rules_out": ["one bad window: another data order or warm-up makes one, not several in a row"],
                "window": [self.onset, step.number],
            },
        )
