"""Checkpoints and evaluations that should have come: later than the run's own rhythm, or a resume that found an older one than there was."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import ClassVar

from holter.frame import Event

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.checkpoint_news import shown_age
from holter_monitor.stream.intervals import INTERVALS, declared, expected_seconds
from holter_monitor.stream.steps import RunFacts, Step, Topology


@dataclass(slots=True)
class Rhythm:
    """When one word was said: steps and times."""

    steps: deque[int] = field(default_factory=lambda: deque(maxlen=9))
    times: deque[float] = field(default_factory=lambda: deque(maxlen=9))
    onset: int | None = None

    def interval(self, declared: int | None, least: int) -> tuple[float, float] | None:
        """`(steps, seconds)` from one to the next; None while neither is declared nor known. Seconds 0.0: not known."""
        if len(self.steps) >= least:
            gaps = [b - a for a, b in zip(self.steps, list(self.steps)[1:], strict=False) if b > a]
            spans = [b - a for a, b in zip(self.times, list(self.times)[1:], strict=False) if b > a]
            if gaps:
                return float(median(gaps)), float(median(spans)) if spans else 0.0
        return (float(declared), 0.0) if declared else None


@dataclass(kw_only=True)
class Overdue:
    """Learned from the last eight intervals, or declared in the run's config; overdue when twice the interval has gone by in steps and in time. One that is
    expected by time (`config={"expect": {"eval_every": "2h"}}`) is overdue after one and a half times.

    Checkpoints whose place is watched are `CheckpointAge`'s. Both must have gone by: a run that writes every two hours writes rarely in steps when it is
    fast, one that writes every thousand steps rarely in hours when it is slow. Also `checkpoint_lost`: an attempt that starts before the newest
    checkpoint that the run declared.
    """

    kind: ClassVar[str] = "checkpoint_overdue"
    lateness: float = 2.0
    """Intervals after which it is overdue."""
    expected_lateness: float = 1.5
    learned_events: int = 4
    """Events (three intervals) that make a rhythm."""
    rhythms: dict[str, Rhythm] = field(init=False, default_factory=lambda: {word: Rhythm() for word in INTERVALS})
    declared: dict[str, int] = field(init=False, default_factory=dict)
    expected: dict[str, float] = field(init=False, default_factory=dict)
    """Seconds."""
    attempt: str = field(init=False, default="")
    newest: int = field(init=False, default=-1)
    """Step of the newest checkpoint that was declared."""
    path: str = field(init=False, default="")
    started: tuple[int, float] | None = field(init=False, default=None)
    is_watched: bool = field(init=False, default=False)
    """An agent looks at the checkpoints' place."""

    def begin(self, run: RunFacts) -> None:
        self.declared = {word: steps for word in INTERVALS if (steps := declared(run.config, word))}
        self.expected = {word: seconds for word in INTERVALS if (seconds := expected_seconds(run.config, word))}

    def hear(self, event: Event, topology: Topology) -> None:
        self.is_watched |= event["event"] == "checkpoint_files"

    def observe(self, step: Step) -> list[Finding] | None:
        said: list[Finding] = []
        if step.attempt != self.attempt or self.started is None:
            said += self._resumed(step)
        for word, rhythm in self.rhythms.items():
            if word in step.words:
                said += self._happened(word, rhythm, step)
            elif rhythm.onset is None and step.number % 8 == 0 and not (self.is_watched and word == "checkpoint"):
                said += self._check(word, rhythm, step)
        return said or None

    def _resumed(self, step: Step) -> list[Finding]:
        """A new attempt. One that begins well before the newest checkpoint did not find it."""
        was_running = self.started is not None
        self.attempt, self.started = step.attempt, (step.number, step.time)
        for rhythm in self.rhythms.values():
            if rhythm.steps and rhythm.steps[-1] > step.number:
                rhythm.steps.clear()
                rhythm.times.clear()
        if not was_running or self.newest < 0 or step.number > self.newest:
            return []
        newest, self.newest = self.newest, -1
        lost = newest - step.number + 1
        if lost <= 1:
            return []
        where = f" ({self.path})" if self.path else ""
        return [
            Finding(
                kind="checkpoint_lost",
                severity=Severity.WARNING,
                scope=f"checkpoint of step {newest}",
                onset_step=step.number,
                detected_step=step.number,
                end_step=step.number,
                summary=f"the attempt started at step {step.number} although a checkpoint of step {newest} was written{where}: "
                f"{lost} steps are done again, and that checkpoint is gone or was not used",
                evidence={"newest_step": newest, "steps_again": lost, "path": self.path, "window": [max(0, step.number - 50), newest]},
            )
        ]

    def _happened(self, word: str, rhythm: Rhythm, step: Step) -> list[Finding]:
        said = []
        if rhythm.onset is not None:
            said = [self._finding(word, rhythm, step, None, end_step=step.number)]
            rhythm.onset = None
        events = [event for event in step.events if event["event"] == word]
        # An event may arrive after its step was judged: what it says of itself counts, not the step on which it hangs.
        at = max((told for event in events if isinstance(told := event.get("step"), int)), default=step.number)
        rhythm.steps.append(at)
        rhythm.times.append(step.time)
        if word == "checkpoint":
            self.newest = at
            self.path = str((events[-1].get("attrs") or {}).get("path") or "")[:200] if events else ""
        return said

    def _check(self, word: str, rhythm: Rhythm, step: Step) -> list[Finding]:
        expected = self.expected.get(word)
        interval = (0.0, expected) if expected else rhythm.interval(self.declared.get(word), self.learned_events)
        if interval is None or self.started is None:
            return []
        (steps, seconds), lateness = interval, self.expected_lateness if expected else self.lateness
        last_step, last_time = (rhythm.steps[-1], rhythm.times[-1]) if rhythm.steps else self.started
        last_step, last_time = max(last_step, self.started[0]), max(last_time, self.started[1])
        if step.number - last_step <= lateness * steps or step.time - last_time <= lateness * seconds:
            return []
        rhythm.onset = int(last_step + steps) if steps else min(step.number, last_step + 1)
        return [self._finding(word, rhythm, step, interval, late=step.time - last_time - seconds if seconds else 0.0)]

    def _finding(
        self,
        word: str,
        rhythm: Rhythm,
        step: Step,
        interval: tuple[float, float] | None,
        *,
        late: float = 0.0,
        end_step: int | None = None,
    ) -> Finding:
        what = "checkpoint" if word == "checkpoint" else "evaluation"
        onset = rhythm.onset if rhythm.onset is not None else step.number
        last = rhythm.steps[-1] if rhythm.steps else None
        since = f"the last was at step {last}" if last is not None else "there was none yet"
        steps, seconds = interval or (0.0, 0.0)
        every = (
            f", every {steps:.0f} steps is this run's rhythm"
            if steps
            else f", one is expected every {shown_age(seconds)}"
            if seconds
            else ""
        )
        hours = (step.time - rhythm.times[-1]) / 3600.0 if rhythm.times else 0.0
        ago = f", {hours:.1f} h ago" if 0.1 < hours < 1e4 else ""
        overdue = f" ({shown_age(late)} overdue)" if 60.0 <= late < 3.6e7 else ""
        return Finding(
            kind=f"{word}_overdue",
            severity=Severity.WARNING,
            scope=word,
            onset_step=onset,
            detected_step=max(step.number, onset),
            end_step=None if end_step is None else max(end_step, onset),
            summary=f"the {what} has come at step {end_step}"
            if end_step is not None
            else f"the {what} {f'due at step {onset}' if steps else 'that is due'} has not come by step {step.number}{overdue}: {since}{ago}{every}",
            evidence={
                "last_step": last,
                "interval_steps": steps or None,
                "interval_seconds": seconds or None,
                "late_seconds": late or None,
                "window": [max(0, onset - 50), max(step.number, onset)],
            },
        )
