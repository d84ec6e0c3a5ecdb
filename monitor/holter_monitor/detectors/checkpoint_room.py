"""The next checkpoint will not fit: known before it is written, from the size of the last ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from holter.frame import Event

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.checkpoint_news import News, news
from holter_monitor.stream.steps import Step, Topology


@dataclass(kw_only=True)
class CheckpointRoom:
    """Free space against what the next checkpoint needs: the largest of the last three whole ones, less what is written of it already.

    Where retention deletes before it writes, a folder is always that full: space with which a checkpoint has come once is enough.
    """

    kind: ClassVar[str] = "disk_pressure"
    folder: str = field(init=False, default="")
    whole: int = field(init=False, default=-1)
    """Step of the newest whole one."""
    enough: int | None = field(init=False, default=None)
    """The least room, beyond what was written, with which one has come."""
    least: int | None = field(init=False, default=None)
    """The least room since the newest came."""
    onset: int | None = field(init=False, default=None)
    step: int = field(init=False, default=0)

    def observe(self, step: Step) -> None:
        self.step = step.number

    def hear(self, event: Event, topology: Topology) -> Finding | None:
        told = news(event)
        if told is None or told.free is None or not told.whole:
            return None
        newest = told.whole[-1].step
        writing = sum(entry.bytes for entry in told.entries if entry.state == "writing" and entry.step > newest)
        room = told.free + writing
        if newest > self.whole:
            if self.least is not None and self.whole >= 0:
                self.enough = self.least if self.enough is None else min(self.enough, self.least)
            self.whole, self.least = newest, None
        self.least = room if self.least is None else min(room, self.least)
        self.folder = told.folder
        return self._judged(told, room)

    def _judged(self, told: News, room: int) -> Finding | None:
        needed = max(entry.bytes for entry in told.whole[-3:])
        fits = room >= needed or (self.enough is not None and room >= 0.95 * self.enough)
        if fits == (self.onset is None):
            return None
        text = f"the next checkpoint, {_shown(needed)} as the last ones, does not fit into {told.folder}: {_shown(room)} free"
        if fits:
            onset, self.onset = self.onset or 0, None
            return self._finding(
                f"there is room for a checkpoint in {told.folder} again: {_shown(room)} free", onset, needed, room, end=True
            )
        self.onset = self.step
        kept = len([entry for entry in told.whole if entry.state == "complete"])
        text += f", {kept} are kept" + (f", {kept - told.keep} more than retention should leave" if 0 < told.keep < kept else "")
        return self._finding(text, self.onset, needed, room)

    def _finding(self, text: str, onset: int, needed: int, room: int, *, end: bool = False) -> Finding:
        at = max(self.step, onset)
        return Finding(
            kind=self.kind,
            severity=Severity.WARNING,
            scope=f"room in {self.folder}",
            onset_step=onset,
            detected_step=at,
            end_step=at if end else None,
            summary=text,
            evidence={"folder": self.folder, "needed_bytes": needed, "free_bytes": room},
        )


def _shown(count: float) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} B"
