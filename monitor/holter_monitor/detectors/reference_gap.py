"""A run that learns worse than the run it is held against: loss at equal tokens, and evaluations where the user expects them no worse."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite, sqrt
from typing import Any, ClassVar

import numpy as np
from holter.frame import Event

from holter_monitor.findings import Finding, Severity
from holter_monitor.reference import Reference, deviation
from holter_monitor.stream.steps import RunFacts, Step, Topology

FALLING_IS_BETTER = ("loss", "perplexity", "ppl", "error", "bpb")


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
    evaluations_in_row: int = 2
    worse_share: float = 2 / 3
    """Share of at least three tasks that are worse than the reference's."""
    reference: Reference | None = field(init=False, default=None)
    expects_evaluations: bool = field(init=False, default=False)
    tokens: float = field(init=False, default=0.0)
    tokens_by_step: float = field(init=False, default=0.0)
    last_step: int | None = field(init=False, default=None)
    cell: int = field(init=False, default=-1)
    cell_step: int = field(init=False, default=0)
    losses: list[float] = field(init=False, default_factory=list)
    bad: list[tuple[int, float, float]] = field(init=False, default_factory=list)
    """(first step, gap, deviations) of the bad cells in a row."""
    good: int = field(init=False, default=0)
    onset: int | None = field(init=False, default=None)
    worse: list[int] = field(init=False, default_factory=list)
    """Steps of the evaluations in a row that were worse."""
    worse_onset: int | None = field(init=False, default=None)

    def begin(self, run: RunFacts) -> None:
        self.reference = run.reference
        expected = run.config.get("expect")
        self.expects_evaluations = isinstance(expected, dict) and expected.get("evaluations") == "not_below_reference"

    def observe(self, step: Step) -> Finding | None:
        if self.reference is None:
            return None
        cell = self.reference.cell(self._position(step))
        said = self._judge(step) if cell != self.cell else None
        if cell != self.cell:
            self.cell, self.cell_step, self.losses = cell, step.number, []
        loss = step.mean("loss")
        if cell >= 0 and loss is not None and isfinite(loss):
            self.losses.append(loss)
        return said

    def _position(self, step: Step) -> float:
        """Where the run stands on the reference's axis. Going back to an earlier step gives back its tokens."""
        assert self.reference is not None
        if self.reference.unit == "step":
            return float(step.number)
        consumed = step.mean("consumed_tokens")
        if consumed is not None:
            self.tokens = consumed
        else:
            column = step.column("tokens")
            own = float(column[0][column[1] & np.isfinite(column[0])].sum()) if column is not None else 0.0
            if self.last_step is not None and step.number <= self.last_step:
                self.tokens -= self.tokens_by_step * (self.last_step - step.number + 1)
            self.tokens += own
            self.tokens_by_step = own or self.tokens_by_step
        self.last_step = step.number
        return self.tokens

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
        since = f"{self.tokens / 1e9:.3g}B tokens" if self.reference.unit == "tokens" else f"step {step.number}"
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
                "position": self.tokens if self.reference.unit == "tokens" else step.number,
                "rules_out": ["one bad window: another data order or warm-up makes one, not several in a row"],
                "window": [self.onset, step.number],
            },
        )

    def hear(self, event: Event, topology: Topology) -> Finding | None:
        if event["event"] != "eval" or self.reference is None or not self.expects_evaluations:
            return None
        step = event.get("step") or self.last_step or 0
        metrics = (event.get("attrs") or {}).get("metrics") or {}
        compared = self._compare(metrics, self.tokens if self.reference.unit == "tokens" else float(step))
        if len(compared) < 3:
            return None
        worse = {name: pair for name, pair in compared.items() if _is_worse(name, *pair)}
        if len(worse) / len(compared) < self.worse_share:
            self.worse.clear()
            return None
        self.worse.append(step)
        if self.worse_onset is not None or len(self.worse) < self.evaluations_in_row:
            return None
        self.worse_onset = self.worse[0]
        return self._evaluations(step, worse, len(compared))

    def _compare(self, metrics: dict[str, Any], position: float) -> dict[str, tuple[float, float]]:
        assert self.reference is not None
        found: dict[str, tuple[float, float]] = {}
        for name, value in metrics.items():
            theirs = self.reference.evaluation(name, position)
            if theirs is not None and isinstance(value, int | float) and isfinite(value):
                found[name] = (float(value), theirs)
        return found

    def _evaluations(self, step: int, worse: dict[str, tuple[float, float]], num_compared: int) -> Finding:
        assert self.reference is not None
        assert self.worse_onset is not None
        pairs = ", ".join(f"{name} {mine:.3g} / {theirs:.3g}" for name, (mine, theirs) in sorted(worse.items()))
        return Finding(
            kind=self.kind,
            severity=Severity.WARNING,
            scope="evaluations",
            onset_step=self.worse_onset,
            detected_step=step,
            score=len(worse) / num_compared,
            summary=f"worse than {self.reference.name} on {len(worse)} of {num_compared} evaluations at equal {self.reference.unit}: {pairs}",
            evidence={
                "reference": self.reference.name,
                "worse": {name: list(pair) for name, pair in worse.items()},
                "compared": num_compared,
            },
        )


def _is_worse(name: str, mine: float, theirs: float) -> bool:
    falls = any(word in name.lower() for word in FALLING_IS_BETTER)
    return mine > theirs if falls else mine < theirs
