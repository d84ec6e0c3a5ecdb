"""Findings of a log folded into troubles by the state machine that serves live runs, its clock counting records instead of seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from holter_monitor import incidents as machine
from holter_monitor.diagnosis.symptoms import explains
from holter_monitor.findings import Finding, Severity
from holter_monitor.incidents import Incident, Timing

REJOIN_RECORDS = 5
"""A trouble that comes back within so many records is the same one. Few: who reads a log wants to see two spikes as two."""
TOGETHER_RECORDS = 50
"""Ranks that fall ill of one kind no further apart are one trouble, if their onsets fit."""
TIMING = Timing(keep_open_seconds=REJOIN_RECORDS, rejoin_seconds=REJOIN_RECORDS, together_seconds=1.0, flap_changes=1_000_000)
"""In records, not seconds: many logs tell no time."""


@dataclass(slots=True)
class Trouble:
    """One incident of a scanned run, with what only a log knows of it."""

    place: int
    """Its number in the run, in the order of detection."""
    source: str
    incident: Incident
    detected_step: int
    """The step whose record first made it as severe as a warning; for a mere note, the first."""
    detected_record: int
    """The same, as the number of the record in the run, counted from 0."""
    score: float = 0.0
    cause: Trouble | None = None
    """The trouble of which this one is a symptom."""
    onset_tokens: float | None = None
    """Tokens consumed at the onset, where the log counts them."""
    detected_tokens: float | None = None

    @property
    def kind(self) -> str:
        return self.incident.kind

    @property
    def severity(self) -> Severity:
        return self.incident.severity

    @property
    def is_loud(self) -> bool:
        """Whether somebody would be told of it."""
        return self.severity >= Severity.WARNING

    @property
    def onset_step(self) -> int:
        return self.incident.onset_step

    @property
    def end_step(self) -> int | None:
        return self.incident.end_step

    @property
    def metric(self) -> str | None:
        return self.incident.metric

    @property
    def ranks(self) -> list[int]:
        return self.incident.ranks

    @property
    def summary(self) -> str:
        return self.incident.summary

    @property
    def cost_seconds(self) -> float | None:
        return self.incident.cost_seconds

    @property
    def causes(self) -> list[dict[str, Any]]:
        return self.incident.causes


@dataclass(slots=True)
class Episodes:
    """All troubles of one run."""

    run: str = ""
    all: list[Trouble] = field(default_factory=list)
    recent: list[Trouble] = field(default_factory=list)
    """Those that a new finding may still belong to."""
    known: dict[str, Trouble] = field(default_factory=dict)
    """By the identities of their findings: one that is said again is never a new trouble."""

    def say(self, findings: list[Finding], record: int, source: str) -> list[Trouble]:
        """Takes findings in, said at the record of this number; answers with the troubles that are new."""
        new: list[Trouble] = []
        for finding in findings:
            known = self._owner(finding, record)
            if known is not None:
                self._hear(known, finding, record)
                if known not in self.recent:
                    self.recent.append(known)
                continue
            incident, _ = machine.opened(self.run, "", finding, float(record), TIMING)
            trouble = Trouble(len(self.all), source, incident, finding.detected_step, record, abs(finding.score))
            self.all.append(trouble)
            self.known[incident.id] = trouble
            self.recent.append(trouble)
            new.append(trouble)
            self._explain(trouble)
        if findings:
            self.recent = [trouble for trouble in self.recent if self._may_go_on(trouble, record)]
        return new

    def _owner(self, finding: Finding, record: int) -> Trouble | None:
        key = machine.identity(self.run, finding)
        found = self.known.get(key) or next((each for each in self.recent if self._belongs(each.incident, finding, record)), None)
        if found is not None:
            self.known[key] = found
        return found

    @staticmethod
    def _belongs(incident: Incident, finding: Finding, record: int) -> bool:
        """Live, a second spike joins the incident that is still open; here only one that is close."""
        is_near = record - incident.updated <= (REJOIN_RECORDS if finding.scope in incident.scopes else TOGETHER_RECORDS)
        return is_near and finding.attempt == incident.attempt and machine.belongs(incident, finding, float(record), TIMING)

    @staticmethod
    def _may_go_on(trouble: Trouble, record: int) -> bool:
        return trouble.incident.is_lasting or record - trouble.incident.updated <= TOGETHER_RECORDS

    @staticmethod
    def _hear(trouble: Trouble, finding: Finding, record: int) -> None:
        was_loud = trouble.is_loud
        machine.heard(trouble.incident, finding, float(record), TIMING)
        trouble.score = max(trouble.score, abs(finding.score))
        trouble.incident.metric = trouble.incident.metric or finding.metric
        if trouble.is_loud and not was_loud:
            trouble.detected_step, trouble.detected_record = finding.detected_step, record

    def _explain(self, trouble: Trouble) -> None:
        """A symptom beside its cause, whichever came to light first."""
        for other in self.recent:
            if other.incident.attempt != trouble.incident.attempt:
                continue
            if trouble.cause is None and other.cause is None and explains(other.incident, trouble.incident):
                trouble.cause = other
            elif other.cause is None and trouble.cause is None and explains(trouble.incident, other.incident):
                other.cause = trouble
