"""Checkpoints that were whole on disk and are gone, or are not whole any more, as the node agent sees their folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from holter.frame import Event

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.checkpoint_news import MAX_ITEMS, Entry, News, news, shown_age
from holter_monitor.stream.steps import Step, Topology

MAX_FOLDERS = 16


@dataclass(kw_only=True)
class CheckpointFiles:
    """Retention deletes old checkpoints and keeps the newest; that is silence. The newest one gone is not retention, nor is none left. One that was
    moved to the place of the copies is not gone.

    Each message holds the whole folder, so a deletion is seen also when the agent was away meanwhile.
    """

    kind: ClassVar[str] = "checkpoint_lost"
    folders: dict[str, dict[str, list[Any]]] = field(init=False, default_factory=dict)
    """Folder -> name -> [step, bytes, state, written]."""
    onsets: dict[str, list[int]] = field(init=False, default_factory=dict)
    """Scope -> [onset step, step of the newest checkpoint lost]."""
    step: int = field(init=False, default=0)

    def observe(self, step: Step) -> None:
        self.step = step.number

    def hear(self, event: Event, topology: Topology) -> list[Finding] | None:
        told = news(event)
        if told is None or told.problem or (told.folder not in self.folders and len(self.folders) >= MAX_FOLDERS):
            return None
        folder, before = told.folder, self.folders.get(told.folder, {})
        now = {entry.name: _judged(entry, before.get(entry.name)) for entry in told.entries}
        self.folders[folder] = now
        return self._recovered(folder, now) + self._gone(told, before, now) + self._broken(folder, before, now) or None

    def _gone(self, told: News, before: Mapping[str, list[Any]], now: Mapping[str, list[Any]]) -> list[Finding]:
        whole = _whole(before)
        gone = {name: step for name, step in whole.items() if name not in now}
        if not gone or max(gone.values()) < max(whole.values()):
            return []
        left = _whole(now)
        if left and max(left.values()) >= max(gone.values()):
            return []
        rest = _rest(told, now, max(left, key=left.__getitem__)) if left else "no whole checkpoint is left"
        names = ", ".join(sorted(gone, key=gone.__getitem__)[-3:])
        text = f"{len(gone)} checkpoint{'s' if len(gone) > 1 else ''} disappeared from {told.folder}, the newest among them ({names}): {rest}; "
        text += "stop what deletes there (a launch script that clears its folder?) and write a checkpoint now"
        severity = Severity.WARNING if left else Severity.CRITICAL
        scope = f"checkpoints gone from {told.folder}"
        return [self._finding(scope, severity, text, folder=told.folder, lost=gone, disappeared=len(gone))]

    def _broken(self, folder: str, before: Mapping[str, list[Any]], now: Mapping[str, list[Any]]) -> list[Finding]:
        said = []
        for name, (step, _, state, *_) in now.items():
            if state in ("writing", "complete", "moved") or before.get(name, [0, 0, ""])[2] == state:
                continue
            text = f"{name} in {folder} is not whole: {state}; do not resume from it, and write another one"
            said.append(self._finding(f"checkpoint {name} of {folder}", Severity.WARNING, text, folder=folder, lost={name: step}))
        return said

    def _recovered(self, folder: str, now: Mapping[str, list[Any]]) -> list[Finding]:
        """A whole checkpoint as new as the lost one ends it."""
        newest = max(_whole(now).values(), default=-1)
        over = [scope for scope, (_, lost) in self.onsets.items() if scope.endswith(f" {folder}") and newest >= lost]
        said = []
        for scope in over:
            onset, _ = self.onsets.pop(scope)
            text = f"a whole checkpoint of step {newest} is in {folder} again"
            said.append(self._say(scope, Severity.WARNING, text, onset, {"folder": folder}, end_step=max(self.step, onset)))
        return said

    def _finding(self, scope: str, severity: Severity, text: str, *, folder: str, lost: Mapping[str, int], **more: int) -> Finding:
        newest = max(lost.values())
        if scope not in self.onsets and len(self.onsets) >= MAX_FOLDERS * MAX_ITEMS:
            self.onsets.pop(next(iter(self.onsets)))
        onset = self.onsets.setdefault(scope, [self.step, newest])
        onset[1] = max(onset[1], newest)
        return self._say(
            scope,
            severity,
            text,
            onset[0],
            {"folder": folder, "checkpoints": sorted(lost, key=lost.__getitem__), "newest_step": newest} | more,
        )

    def _say(
        self, scope: str, severity: Severity, text: str, onset: int, evidence: dict[str, Any], *, end_step: int | None = None
    ) -> Finding:
        at = max(self.step, onset)
        return Finding(
            kind=self.kind,
            severity=severity,
            scope=scope,
            onset_step=onset,
            detected_step=at,
            end_step=end_step,
            summary=text,
            evidence={**evidence, "window": [max(0, onset - 50), at]},
        )


def _judged(entry: Entry, before: list[Any] | None) -> list[Any]:
    """An agent that starts anew takes each checkpoint for one that is being written, at its first look; what was whole at this size still is. One that
    was moved has no time of its own: it keeps that of the original."""
    if before is not None and entry.state == "writing" and before[:3] == [entry.step, entry.bytes, "complete"]:
        return before
    return [entry.step, entry.bytes, entry.state, entry.written or (before[3] if before else 0.0)]


def _rest(told: News, now: Mapping[str, list[Any]], name: str) -> str:
    written, where = now[name][3], f" at {told.copy}" if now[name][2] == "moved" else ""
    return f"the newest whole one left is {name}{where}" + (f", {shown_age(max(0.0, told.time - written))} old" if written else "")


def _whole(items: Mapping[str, list[Any]]) -> dict[str, int]:
    """Name -> step of those that are whole."""
    return {name: step for name, (step, _, state, *_) in items.items() if state in ("complete", "moved")}
