"""The dtypes of the parameters: a run that keeps its weights in another precision than its reference, or than its own attempt before, is another run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import ClassVar

from holter.frame import Event

from holter_monitor.findings import Finding, Severity
from holter_monitor.reference import dtypes
from holter_monitor.stream.steps import MAX_RANKS, RunFacts, Step, Topology

BITS = {"float64": 64, "float32": 32, "bfloat16": 16, "float16": 16, "float8_e4m3fn": 8, "float8_e5m2": 8}
KEPT = 512
"""Families of tensors that are compared; layers of one name are one family."""


@dataclass(kw_only=True)
class Precision:
    """Each family of parameters (`layers.*.mlp.up.weight`) that both sides have, by its dtype as `run.watch` declares it.

    The Smol Training Playbook's data-parallel wrapper of a new library kept weights and gradients in bf16; it showed as a loss that differed
    greatly from the reference on the same data (reference/playbook.md, S11). Here it shows before the first step. Gradients travel in the
    parameters' dtype unless a framework keeps its own copy, which is not on the wire. Cost: once an attempt, 1 ms for 1,000 tensors.
    """

    kind: ClassVar[str] = "reference_gap"
    least_share: float = 0.01
    """Share of the compared elements that must differ: one norm kept in float32 is a choice."""
    reference: dict[str, str] = field(init=False, default_factory=dict)
    reference_name: str = field(init=False, default="")
    before: dict[str, str] = field(init=False, default_factory=dict)
    """Family -> dtype of the attempt before."""
    now: dict[str, str] = field(init=False, default_factory=dict)
    sizes: dict[str, int] = field(init=False, default_factory=dict)
    """Elements of each family, on the ranks that told."""
    told: set[int] = field(init=False, default_factory=set)
    """The ranks that have told their dtypes in this attempt: one of each group of replicas."""
    open: dict[str, Finding] = field(init=False, default_factory=dict)
    attempts: int = field(init=False, default=1)
    step: int = field(init=False, default=0)

    def begin(self, run: RunFacts) -> None:
        if run.reference is not None:
            self.reference, self.reference_name = dict(list(run.reference.precision.items())[:KEPT]), run.reference.name

    def observe(self, step: Step) -> None:
        self.step = step.number

    def hear(self, event: Event, topology: Topology) -> list[Finding] | None:
        rank, attrs = event.get("rank"), event.get("attrs") or {}
        if event["event"] != "watch" or not isinstance(attrs.get("table"), dict):
            return None
        if not isinstance(rank, int) or not 0 <= rank < MAX_RANKS:
            return None
        try:
            held = dtypes(attrs["table"])
        except ValueError:
            return None  # `Rounds` counts what is no layout
        said = self._next_attempt() if rank in self.told else []
        self.told.add(rank)
        for family, (dtype, elements) in held.items():
            if family in self.now or len(self.now) < KEPT:
                self.now[family] = dtype
                self.sizes[family] = max(elements, self.sizes.get(family, 0))
        said += self._compare(self.reference, self.reference_name, "precision")
        return said + self._compare(self.before, f"attempt {self.attempts - 1}", "precision, attempt before") or None

    def _next_attempt(self) -> list[Finding]:
        over = [
            replace(finding, detected_step=max(self.step, finding.onset_step), end_step=max(self.step, finding.onset_step))
            for finding in self.open.values()
        ]
        self.before, self.now, self.sizes, self.told, self.open = self.now, {}, {}, set(), {}
        self.attempts += 1
        return over

    def _compare(self, theirs: dict[str, str], whose: str, scope: str) -> list[Finding]:
        common = [family for family in self.now if family in theirs]
        unlike = [family for family in common if self.now[family] != theirs[family]]
        whole = sum(self.sizes[family] for family in common)
        share = sum(self.sizes[family] for family in unlike) / whole if whole else 0.0
        if share < self.least_share or (scope in self.open and share <= 1.2 * float(self.open[scope].evidence["share"])):
            return []
        changes = Counter({(theirs[family], self.now[family]): 0 for family in unlike})
        for family in unlike:
            changes[theirs[family], self.now[family]] += self.sizes[family]
        (was, became), _ = changes.most_common(1)[0]
        is_lower = BITS.get(became, 32) < BITS.get(was, 32)
        more = f" and {len(unlike) - 2} more" if len(unlike) > 2 else ""
        onset = self.open[scope].onset_step if scope in self.open else self.step
        finding = self.open[scope] = Finding(
            kind=self.kind,
            severity=Severity.WARNING if is_lower else Severity.INFO,
            scope=scope,
            onset_step=onset,
            detected_step=max(self.step, onset),
            score=share / self.least_share,
            summary=f"{share:.0%} of the parameters are kept in {became}, {whose} has them in {was} ({', '.join(unlike[:2])}{more})"
            + ("; so are gradients and optimizer states made like them" if is_lower else ""),
            evidence={
                "reference": whose,
                "dtype": became,
                "reference_dtype": was,
                "share": round(share, 4),
                "families": unlike[:16],
                "changes": {f"{old} to {new}": elements for (old, new), elements in changes.items()},
                "window": [onset, max(self.step, onset)],
            },
        )
        return [finding]
