"""Checkpoints that should have come to the place that is watched, and have not: what lies there counts, not what the run says."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, ClassVar

from holter.frame import Event

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.checkpoint_news import News, news, shown_age
from holter_monitor.stream.intervals import declared
from holter_monitor.stream.steps import RunFacts, Step, Topology


@dataclass(kw_only=True)
class CheckpointAge:
    """The interval is what the operator said (`HOLTER_CHECKPOINT_EVERY`), or what eight arrivals taught, or what the run's config says in steps.

    A learned one must have gone by in steps and in time, as for checkpoints that are only declared. A run that declares checkpoints of which nothing
    ever arrives writes them somewhere else than where they are kept, or not at all.
    """

    kind: ClassVar[str] = "checkpoint_overdue"
    lateness: float = 2.0
    """Learned intervals after which it is overdue."""
    promised_lateness: float = 1.5
    """Intervals that the operator said, after which it is."""
    learned_arrivals: int = 4
    claim_seconds: float = 1800.0
    """So long after a declared checkpoint, its files must be whole: large ones are written in the background for minutes."""
    folder: str = field(init=False, default="")
    every: float = field(init=False, default=0.0)
    declared: int = field(init=False, default=0)
    seen: dict[str, float] = field(init=False, default_factory=dict)
    """Whole checkpoints at the last news: name -> when written."""
    newest: list[Any] = field(init=False, default_factory=list)
    """[name, time] of the newest whole one."""
    steps: deque[int] = field(init=False, default_factory=lambda: deque(maxlen=9))
    times: deque[float] = field(init=False, default_factory=lambda: deque(maxlen=9))
    """Of arrivals in this attempt: where the run was, and when."""
    claims: list[list[float]] = field(init=False, default_factory=list)
    """[step, time] of the first and the last declared checkpoint of an attempt of which nothing has arrived."""
    attempt: str = field(init=False, default="")
    started: list[float] = field(init=False, default_factory=list)
    step: int = field(init=False, default=0)
    onset: int | None = field(init=False, default=None)

    def begin(self, run: RunFacts) -> None:
        self.declared = declared(run.config, "checkpoint") or 0

    def hear(self, event: Event, topology: Topology) -> Finding | None:
        told = news(event)
        if told is None or told.problem:
            return None
        self.folder, self.every = told.folder, told.every
        arrived = False
        for entry in told.whole:
            if abs(self.seen.get(entry.name, -9.0) - entry.written) > 1.0 and not (entry.name in self.seen and entry.state == "moved"):
                arrived |= self._arrive(entry.name, entry.written if 0.0 < entry.written <= told.time + 60.0 else told.time)
        self.seen = _moments(told, self.seen)
        if arrived and self.onset is not None:
            said = self._say(f"a whole checkpoint, {self.newest[0]}, has come to {self.folder}", {}, end_step=max(self.step, self.onset))
            self.onset = None
            return said
        return None

    def _arrive(self, name: str, time: float) -> bool:
        """Whether it came while this attempt ran; one from before tells only how old the newest is."""
        if not self.newest or time >= self.newest[1]:
            self.newest = [name, time]
        if not self.started or time < self.started[1]:
            return False
        self.steps.append(self.step)
        self.times.append(time)
        self.claims.clear()
        return True

    def observe(self, step: Step) -> Finding | None:
        self.step = step.number
        if step.attempt != self.attempt or not self.started:
            self.attempt, self.started = step.attempt, [step.number, step.time]
            self.steps.clear()
            self.times.clear()
            self.claims.clear()
        if not self.folder:
            return None
        if "checkpoint" in step.words and not self.steps:
            self.claims = [*self.claims[:1], [step.number, step.time]]
        if self.onset is not None or step.number % 8:
            return None
        return self._late(step) or self._nothing_of_claimed(step)

    def _late(self, step: Step) -> Finding | None:
        steps, seconds, lateness = self._interval()
        if not steps and not seconds:
            return None
        last_step, last_time = (self.steps[-1], self.times[-1]) if self.steps else (int(self.started[0]), self.started[1])
        if step.number - last_step <= lateness * steps or step.time - last_time <= lateness * seconds:
            return None
        self.onset = min(step.number, int(last_step + steps) if steps else last_step + 1)
        expected = shown_age(seconds) if seconds else f"{steps:.0f} steps"
        source = "was said" if self.every else "is its rhythm" if self.steps else "its config says"
        text = f"no whole checkpoint has come to {self.folder} since step {last_step} ({shown_age(step.time - last_time)} ago), one every {expected} {source}"
        return self._say(
            f"{text}: {self._newest(step.time)}", {"interval_steps": steps, "interval_seconds": seconds, "last_step": last_step}
        )

    def _interval(self) -> tuple[float, float, float]:
        """`(steps, seconds, lateness)`; zero where nothing is known."""
        if self.every:
            return 0.0, self.every, self.promised_lateness
        if len(self.steps) >= self.learned_arrivals:
            gaps = [b - a for a, b in zip(self.steps, list(self.steps)[1:], strict=False)]
            spans = [b - a for a, b in zip(self.times, list(self.times)[1:], strict=False)]
            return float(median(gaps)), float(median(spans)), self.lateness
        return float(self.declared), 0.0, self.lateness

    def _nothing_of_claimed(self, step: Step) -> Finding | None:
        patience = max(self.claim_seconds, self.promised_lateness * self.every)
        if len(self.claims) < 2 or step.time - self.claims[0][1] <= patience:
            return None
        first = int(self.claims[0][0])
        self.onset = min(first, step.number)
        age = shown_age(step.time - self.claims[0][1])
        text = f"the run says since step {first}, {age} ago, that it writes checkpoints, and none has come to {self.folder} whole"
        return self._say(f"{text}: {self._newest(step.time)}", {"claimed_step": first})

    def _newest(self, now: float) -> str:
        if not self.newest:
            return "there is none"
        return f"the newest whole one is {self.newest[0]}, {shown_age(max(0.0, now - self.newest[1]))} old"

    def _say(self, text: str, evidence: dict[str, Any], *, end_step: int | None = None) -> Finding:
        onset = self.onset if self.onset is not None else self.step
        at = max(self.step, onset)
        newest = {"newest": self.newest[0], "newest_at": self.newest[1]} if self.newest else {}
        return Finding(
            kind=self.kind,
            severity=Severity.WARNING,
            scope=f"checkpoints in {self.folder}",
            onset_step=onset,
            detected_step=at,
            end_step=end_step,
            summary=text,
            evidence={"folder": self.folder, **newest, **evidence, "window": [max(0, onset - 50), at]},
        )


def _moments(told: News, before: Mapping[str, float]) -> dict[str, float]:
    """One that was moved has no time of its own: it keeps that of the original."""
    return {entry.name: before.get(entry.name, entry.written) if entry.state == "moved" else entry.written for entry in told.whole}
