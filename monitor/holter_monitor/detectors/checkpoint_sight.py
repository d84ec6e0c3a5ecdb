"""The place of the checkpoints does not answer: whether they are there is not known, and that must not look like health."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from holter.frame import Event

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.checkpoint_news import news, shown_age
from holter_monitor.stream.steps import Step, Topology


@dataclass(kw_only=True)
class CheckpointSight:
    """Object stores refuse now and then; five minutes are no hiccup. A look that hangs switches the agent's sampler off, which says so."""

    kind: ClassVar[str] = "checkpoint_overdue"
    patience_seconds: float = 300.0
    since: float | None = field(init=False, default=None)
    folder: str = field(init=False, default="")
    problem: str = field(init=False, default="")
    onset: int = field(init=False, default=0)
    step: int = field(init=False, default=0)
    said: bool = field(init=False, default=False)

    def hear(self, event: Event, topology: Topology) -> Finding | None:
        told, attrs = news(event), event.get("attrs") or {}
        if told is not None:
            self.folder = told.folder
        reason = str(attrs.get("reason") or "")[:300]
        if event["event"] == "sampler_off" and attrs.get("sampler") == "checkpoints" and (self.folder or "agent died" not in reason):
            # An agent that was killed leaves every sampler's fuse in doubt, also where nobody named a place.
            self._blind(reason, float(event.get("time_ns") or 0) / 1e9)
        elif told is not None and told.problem:
            self._blind(told.problem, told.time)
        elif told is not None and self.since is not None:
            self.since, was_said, self.said = None, self.said, False
            return self._finding(f"{self.folder} can be looked at again", end=True) if was_said else None
        return None

    def _blind(self, problem: str, time: float) -> None:
        self.problem = problem
        if self.since is None:
            self.since, self.onset = time, self.step

    def observe(self, step: Step) -> Finding | None:
        self.step = step.number
        if self.since is None or self.said or step.time - self.since <= self.patience_seconds:
            return None
        self.said = True
        age, place = shown_age(step.time - self.since), self.folder or "the place of the checkpoints"
        return self._finding(f"{place} cannot be looked at for {age} ({self.problem}): whether they are there is not known")

    def _finding(self, text: str, *, end: bool = False) -> Finding:
        at = max(self.step, self.onset)
        return Finding(
            kind=self.kind,
            severity=Severity.WARNING,
            scope="sight of the checkpoints",
            onset_step=self.onset,
            detected_step=at,
            end_step=at if end else None,
            summary=text,
            evidence={"folder": self.folder, "unseen": self.problem or "unknown"},
        )
