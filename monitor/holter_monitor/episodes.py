"""Findings of a log folded into troubles: one trouble, one incident, by the same state machine that serves live runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from holter_monitor.findings import Finding, Severity


@dataclass(slots=True)
class Trouble:
    """One incident of a scanned run."""

    place: int
    """Its number in the run, in the order of detection."""
    source: str
    kind: str
    scope: str
    severity: Severity
    onset_step: int
    detected_step: int
    """The step whose record first made it as severe as a warning; for a mere note, the first."""
    summary: str
    score: float
    end_step: int | None = None
    metric: str | None = None
    ranks: tuple[int, ...] = ()
    cost_seconds: float | None = None
    attempt: str = ""
    onset_tokens: float | None = None
    """Tokens consumed at the onset, where the log counts them."""
    detected_tokens: float | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    causes: list[dict[str, Any]] = field(default_factory=list)

    def hear(self, finding: Finding) -> None:
        if finding.severity > self.severity and self.severity < Severity.WARNING:
            self.detected_step = finding.detected_step
        self.severity = max(self.severity, finding.severity)
        self.summary, self.score, self.evidence = finding.summary, max(self.score, finding.score), finding.evidence
        self.end_step, self.metric, self.ranks = finding.end_step, finding.metric or self.metric, finding.ranks
        self.cost_seconds = finding.cost_seconds if finding.cost_seconds is not None else self.cost_seconds


@dataclass(slots=True)
class Episodes:
    """All troubles of one run."""

    all: list[Trouble] = field(default_factory=list)
    known: dict[tuple[str, str, int], Trouble] = field(default_factory=dict)

    @property
    def is_waiting(self) -> bool:
        return False

    def say(self, findings: list[Finding], index: int, source: str) -> list[Trouble]:
        """Takes findings in; answers with the troubles that are new. `index` is the record they were said at."""
        new = []
        for finding in findings:
            identity = (finding.kind, finding.scope, finding.onset_step)
            trouble = self.known.get(identity)
            if trouble is not None:
                trouble.hear(finding)
                continue
            trouble = Trouble(
                len(self.all), source, finding.kind, finding.scope, finding.severity, finding.onset_step, finding.detected_step,
                finding.summary, finding.score, finding.end_step, finding.metric, finding.ranks, finding.cost_seconds, finding.attempt,
                evidence=finding.evidence,
            )  # fmt: skip
            self.known[identity] = trouble
            self.all.append(trouble)
            new.append(trouble)
        return new
