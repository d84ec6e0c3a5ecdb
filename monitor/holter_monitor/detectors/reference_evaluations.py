"""Evaluations that are worse than those of the run that this one is held against, where the user expects them no worse."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from typing import Any, ClassVar

from holter.frame import Event

from holter_monitor.findings import Finding, Severity
from holter_monitor.reference import Reference
from holter_monitor.stream.odometer import Odometer
from holter_monitor.stream.steps import RunFacts, Step, Topology

FALLING_IS_BETTER = ("loss", "perplexity", "ppl", "error", "bpb")


@dataclass(kw_only=True)
class ReferenceEvaluations:
    """Single tasks are noisy: two thirds of at least three tasks must be worse, in two evaluations in a row; of fewer tasks all, in four. As many
    that are no worse end it.

    A larger model is expected not to be below a smaller one at equal tokens (`config={"expect": {"evaluations": "not_below_reference"}}`); of any other
    pair, nobody but the user knows. A result belongs to the step that was evaluated, however late it comes.
    """

    kind: ClassVar[str] = "reference_gap"
    evaluations_in_row: int = 2
    few_in_row: int = 4
    worse_share: float = 2 / 3
    reference: Reference | None = field(init=False, default=None)
    is_expected: bool = field(init=False, default=False)
    place: Odometer = field(init=False, default_factory=Odometer)
    step: int = field(init=False, default=0)
    worse: list[int] = field(init=False, default_factory=list)
    """Steps of the evaluations in a row that were worse, and of those that were not, since."""
    good: list[int] = field(init=False, default_factory=list)
    onset: int | None = field(init=False, default=None)

    def begin(self, run: RunFacts) -> None:
        expected = run.config.get("expect")
        self.reference = run.reference
        self.is_expected = isinstance(expected, dict) and expected.get("evaluations") == "not_below_reference"

    def observe(self, step: Step) -> None:
        self.step = step.number
        if self.is_expected and self.reference is not None:
            self.place.take(step, self.reference.unit)

    def hear(self, event: Event, topology: Topology) -> Finding | None:
        if event["event"] != "eval" or self.reference is None or not self.is_expected:
            return None
        metrics = (event.get("attrs") or {}).get("metrics")
        step = event.get("step")
        at = self.step if step is None else step
        if not isinstance(metrics, dict) or at in (*self.worse[-1:], *self.good[-1:]):
            return None  # every rank may say it
        compared = self._compare(metrics, self.place.at(at, self.reference.unit))
        if not compared:
            return None
        worse = {name: pair for name, pair in compared.items() if _is_worse(name, *pair)}
        share, needed = (self.worse_share, self.evaluations_in_row) if len(compared) >= 3 else (1.0, self.few_in_row)
        return self._bad(at, worse, compared, needed) if len(worse) >= share * len(compared) else self._fine(at, compared, needed)

    def _compare(self, metrics: dict[str, Any], position: float) -> dict[str, tuple[float, float]]:
        assert self.reference is not None
        found: dict[str, tuple[float, float]] = {}
        for name, value in metrics.items():
            theirs = self.reference.evaluation(name, position)
            if theirs is not None and isinstance(value, int | float) and isfinite(value):
                found[name] = (float(value), theirs)
        return found

    def _bad(self, at: int, worse: dict[str, tuple[float, float]], compared: dict[str, tuple[float, float]], needed: int) -> Finding | None:
        assert self.reference is not None
        self.good.clear()
        self.worse = [*self.worse, at][-64:]
        if self.onset is not None or len(self.worse) < needed:
            return None
        self.onset = self.worse[0]
        pairs = ", ".join(f"{name} {mine:.3g} / {theirs:.3g}" for name, (mine, theirs) in sorted(worse.items()))
        text = f"worse than {self.reference.name} on {len(worse)} of {len(compared)} evaluations at equal {self.reference.unit}, "
        return self._finding(at, f"{text}{len(self.worse)} times in a row (step {at}): {pairs}", worse, compared)

    def _fine(self, at: int, compared: dict[str, tuple[float, float]], needed: int) -> Finding | None:
        assert self.reference is not None
        self.worse.clear()
        self.good = [*self.good, at][-64:]
        if self.onset is None or len(self.good) < needed:
            return None
        text = f"no worse than {self.reference.name} on {len(compared)} evaluations at equal {self.reference.unit}"
        said = self._finding(at, text, {}, compared, is_over=True)
        self.onset = None
        return said

    def _finding(
        self, at: int, text: str, worse: dict[str, tuple[float, float]], compared: dict[str, tuple[float, float]], *, is_over: bool = False
    ) -> Finding:
        assert self.reference is not None
        assert self.onset is not None
        seen = max(self.step, at, self.onset)
        return Finding(
            kind=self.kind,
            severity=Severity.WARNING,
            scope="evaluations",
            onset_step=self.onset,
            detected_step=seen,
            end_step=seen if is_over else None,
            score=len(worse) / len(compared),
            summary=text,
            evidence={
                "reference": self.reference.name,
                "aligned_by": self.reference.unit,
                "evaluated_step": at,
                "worse": {name: list(pair) for name, pair in worse.items()},
                "compared": len(compared),
            },
        )


def _is_worse(name: str, mine: float, theirs: float) -> bool:
    falls = any(word in name.lower() for word in FALLING_IS_BETTER)
    return mine > theirs if falls else mine < theirs
