"""A run that is restarted again and again without coming forward."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import ClassVar

from holter.frame import Event

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.steps import Arrival, Step, Topology

BLAMES = frozenset({"rank_lost", "rank_failed", "gpu_error", "rank_hung"})


@dataclass(slots=True)
class Life:
    """One attempt, as far as a storm needs it."""

    began: float
    furthest: int = -1
    node: str = ""
    """The node of the first rank that was lost."""
    why: str = ""


@dataclass(kw_only=True)
class RestartStorm:
    """Attempts that begin too fast (five in thirty minutes, as nvrx_watch's), or several in a row that get no further than those before them.

    The node whose rank was lost first is kept for each attempt: "node-12 in 3 of the last 4" is the sentence that ends a storm.
    """

    kind: ClassVar[str] = "restart_storm"
    window_seconds: float = 1800.0
    restarts: int = 5
    """Attempts within the window."""
    fruitless: int = 3
    """Attempts in a row that did not get past the furthest step reached before."""
    lives: deque[Life] = field(init=False, default_factory=lambda: deque(maxlen=64))
    attempt: str = field(init=False, default="")
    seen: deque[str] = field(init=False, default_factory=lambda: deque(maxlen=64))
    """The newest attempts: frames of an old one arrive between those of the next."""
    attempts: int = field(init=False, default=0)
    furthest: int = field(init=False, default=-1)
    """Before the present attempt."""
    in_vain: int = field(init=False, default=0)
    onset: int | None = field(init=False, default=None)
    step: int = field(init=False, default=0)

    def receive(self, arrival: Arrival) -> Finding | None:
        if arrival.attempt == self.attempt or arrival.attempt in self.seen:  # late frames of an older attempt are no restart
            return None
        self.seen.append(arrival.attempt)
        if self.lives:
            last = self.lives[-1]
            self.in_vain = self.in_vain + 1 if last.furthest <= self.furthest else 0
            self.furthest = max(self.furthest, last.furthest)
        self.attempt = arrival.attempt
        self.attempts += 1
        self.lives.append(Life(arrival.received))
        recent = sum(1 for life in self.lives if arrival.received - life.began <= self.window_seconds)
        if recent < self.restarts and self.in_vain < self.fruitless:
            return None
        if self.onset is None:
            self.onset = max(self.step, 0)
        return self._finding(self.onset, recent)

    def observe(self, step: Step) -> Finding | None:
        self.step = step.number
        if not self.lives:
            return None
        life = self.lives[-1]
        life.furthest = max(life.furthest, step.number)
        if self.onset is None or life.furthest <= self.furthest + 100 or step.time - life.began < self.window_seconds:
            return None
        onset, self.onset, self.in_vain = self.onset, None, 0
        return self._finding(onset, 0, end_step=max(step.number, onset))

    def hear(self, event: Event, topology: Topology) -> None:
        rank = event.get("rank")
        if event["event"] in BLAMES and isinstance(rank, int) and self.lives and not self.lives[-1].node:
            life = self.lives[-1]
            life.node = (topology.nodes([rank]) or (f"rank {rank}",))[0]
            attrs = event.get("attrs") or {}
            life.why = str(attrs.get("type") or attrs.get("evidence") or attrs.get("text") or event["event"]).replace("\n", " ")[:100]

    def _finding(self, onset: int, recent: int, *, end_step: int | None = None) -> Finding:
        lives = list(self.lives)[-8:]
        ended = lives[:-1]
        blamed = Counter(life.node for life in ended if life.node).most_common(1)
        suspect, times = blamed[0] if blamed else ("", 0)
        blame = f"; {suspect} was lost first in {times} of the last {len(ended)}" if times >= 2 else ""
        vain = f"{self.in_vain} attempts in a row came no further than step {self.furthest}"
        many = f"{recent} attempts in {self.window_seconds / 60.0:.0f} min" if recent >= self.restarts else vain
        return Finding(
            kind=self.kind,
            severity=Severity.CRITICAL,
            onset_step=onset,
            detected_step=max(self.step, onset),
            end_step=end_step,
            attempt=self.attempt,
            nodes=(suspect,) if times >= 2 and not suspect.startswith("rank ") else (),
            score=float(max(recent, self.in_vain)),
            summary=f"the run is past step {self.furthest} again" if end_step is not None else f"{many}{blame}",
            evidence={
                "attempts": self.attempts,
                "recent": recent,
                "in_vain": self.in_vain,
                "furthest_step": self.furthest,
                "suspect": suspect or None,
                "suspect_times": times,
                "endings": [f"{life.node or 'unknown'}: {life.why or 'no word'}" for life in ended],
                "window": [max(0, onset - 50), max(self.step, onset)],
            },
        )
