"""Checkpoints whose copy at the second place has not arrived, or is not the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from holter.frame import Event

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.checkpoint_news import Entry, News, news, shown_age
from holter_monitor.stream.steps import Step, Topology

MAX_FOLDERS = 16


@dataclass(slots=True)
class Waiting:
    """The oldest whole checkpoint, newer than every one that has a copy, whose copy is not verified."""

    name: str
    since: float
    state: str
    copy: str
    folder: str
    problem: str
    newest: str
    """The newest that has a copy, as it is told."""
    onset: int
    said: bool = False


@dataclass(kw_only=True)
class CheckpointCopies:
    """An upload takes its time, so a copy is late after an hour, or after the interval that the operator said, where that is longer. One that is all
    there and has other bytes is said after ten minutes: it is being written, or it will never be the same. A newer copy makes older ones idle."""

    kind: ClassVar[str] = "checkpoint_overdue"
    late_seconds: float = 3600.0
    differs_seconds: float = 600.0
    waiting: dict[str, Waiting] = field(init=False, default_factory=dict)
    every: float = field(init=False, default=0.0)
    step: int = field(init=False, default=0)

    def hear(self, event: Event, topology: Topology) -> Finding | None:
        told = news(event)
        if told is None or told.problem or not told.copy or (told.folder not in self.waiting and len(self.waiting) >= MAX_FOLDERS):
            return None
        self.every = told.every
        before, now = self.waiting.get(told.folder), self._oldest(told)
        if now is not None:
            self.waiting[told.folder] = now
            return None
        self.waiting.pop(told.folder, None)
        if before is None or not before.said:
            return None
        return self._finding(before, f"{told.whole[-1].name if told.whole else before.name} has its copy at {told.copy}", end=True)

    def _oldest(self, told: News) -> Waiting | None:
        pending: list[Entry] = []
        newest = "there is none"
        for entry in told.whole:
            if entry.has_copy:
                pending, newest = [], f"the newest that has one is {entry.name}"
            else:
                pending.append(entry)
        if not pending:
            return None
        entry, before = pending[0], self.waiting.get(told.folder)
        is_same = before is not None and before.name == entry.name
        since = before.since if before is not None and is_same else told.time
        onset = before.onset if before is not None and (is_same or before.said) else self.step
        said = before.said if before is not None else False
        return Waiting(entry.name, since, entry.copy, told.copy, told.folder, told.copy_problem, newest, onset, said)

    def observe(self, step: Step) -> list[Finding] | None:
        self.step = step.number
        if step.number % 8:
            return None
        said = []
        for waiting in self.waiting.values():
            age = step.time - waiting.since
            late = self.differs_seconds if "differs between" in waiting.state else max(self.late_seconds, self.every)
            if not waiting.said and age > late:
                waiting.said = True
                why = waiting.problem or ("it has not come" if waiting.state == "absent" else waiting.state)
                text = f"{waiting.name} is whole in {waiting.folder} since {shown_age(age)} and has no copy that is the same at {waiting.copy} ({why})"
                said.append(self._finding(waiting, f"{text}: {waiting.newest}"))
        return said or None

    def _finding(self, waiting: Waiting, text: str, *, end: bool = False) -> Finding:
        at = max(self.step, waiting.onset)
        return Finding(
            kind=self.kind,
            severity=Severity.WARNING,
            scope=f"copies at {waiting.copy}",
            onset_step=waiting.onset,
            detected_step=at,
            end_step=at if end else None,
            summary=text,
            evidence={"folder": waiting.folder, "copy_place": waiting.copy, "checkpoint": waiting.name, "copy_state": waiting.state},
        )
