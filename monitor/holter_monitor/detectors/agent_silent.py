"""Silence of a node agent: its frames, or its heartbeats between them, no longer come in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.steps import Arrival, Step

BEGINNING = frozenset({"agent_started", "rank_started"})
ENDING = frozenset({"agent_stopped"})
DEPARTING = frozenset({"rank_finished", "rank_failed", "rank_terminated", "rank_lost"})


@dataclass(slots=True)
class Pulse:
    """One node's signs of life."""

    seen: float
    """When the last frame came in, moved on by whatever time the collector itself was away."""
    started: int = 0
    ended: int = 0
    """Ranks that have been announced, and that have left."""
    stopped: bool = False
    silent_since: int | None = None


@dataclass(kw_only=True)
class AgentSilent:
    """An agent sends at least a heartbeat every 15 s; it is silent after `max(3 intervals, 60 s) + 15 s` by the collector's clock.

    The collector's own absence (no tick for longer than it should be) is no agent's silence: it is added to every deadline, with one interval to
    send what was spooled. An agent that said goodbye, or whose ranks have all ended, may be silent. Nodes that fall silent together are one finding.
    """

    kind: ClassVar[str] = "agent_silent"
    interval_seconds: float = 15.0
    slack_seconds: float = 15.0
    tick_gap_seconds: float = 30.0
    """Time between two ticks beyond which the collector was away."""
    page_share: float = 0.5
    """Share of the nodes whose silence leaves the run unwatched and is worth waking somebody."""
    pulses: dict[str, Pulse] = field(init=False, default_factory=dict)
    attempt: str = field(init=False, default="")
    ticked: float | None = field(init=False, default=None)
    step: int = field(init=False, default=0)
    onset: int | None = field(init=False, default=None)
    said: tuple[str, ...] = field(init=False, default=())

    def observe(self, step: Step) -> None:
        self.step = step.number

    def receive(self, arrival: Arrival) -> Finding | None:
        if arrival.attempt != self.attempt:
            self.attempt, self.pulses = arrival.attempt, {}
        if arrival.node not in self.pulses and not (arrival.rows or not arrival.words or BEGINNING.intersection(arrival.words)):
            return None  # a job beside the training that declares an event now and then
        pulse = self.pulses.setdefault(arrival.node, Pulse(arrival.received))
        pulse.seen = max(pulse.seen, arrival.received)
        pulse.started += arrival.words.count("rank_started")
        pulse.ended += sum(1 for word in arrival.words if word in DEPARTING)
        pulse.stopped = bool(ENDING.intersection(arrival.words)) or (pulse.stopped and not arrival.rows and not arrival.words)
        if pulse.silent_since is None:
            return None
        pulse.silent_since = None
        return self._changed()

    def tick(self, now: float) -> Finding | None:
        away = now - self.ticked if self.ticked is not None else 0.0
        self.ticked = now
        if away > self.tick_gap_seconds:
            for pulse in self.pulses.values():
                pulse.seen += away + self.interval_seconds
            return None
        limit = max(3.0 * self.interval_seconds, 60.0) + self.slack_seconds
        late = [
            pulse
            for pulse in self.pulses.values()
            if pulse.silent_since is None and now - pulse.seen > limit and not pulse.stopped and not 0 < pulse.started <= pulse.ended
        ]
        for pulse in late:
            pulse.silent_since = self.step
        return self._changed() if late else None

    def _changed(self) -> Finding | None:
        silent = tuple(sorted(node for node, pulse in self.pulses.items() if pulse.silent_since is not None))
        if silent == self.said:
            return None
        if self.onset is None:
            self.onset = self.step
        onset, before = self.onset, self.said
        self.said = silent
        if not silent:
            self.onset = None
        return self._finding(onset, silent or before, is_over=not silent)

    def _finding(self, onset: int, nodes: tuple[str, ...], *, is_over: bool) -> Finding:
        share = len(nodes) / max(1, len(self.pulses))
        who = (
            f"the agent of {nodes[0]}"
            if len(nodes) == 1
            else f"the agents of {len(nodes)} of {len(self.pulses)} nodes ({', '.join(nodes[:4])})"
        )
        have = "has" if len(nodes) == 1 else "have"
        return Finding(
            kind=self.kind,
            severity=Severity.CRITICAL if share >= self.page_share else Severity.WARNING,
            onset_step=onset,
            detected_step=max(self.step, onset),
            end_step=max(self.step, onset) if is_over else None,
            nodes=nodes[:256],
            score=float(len(nodes)),
            attempt=self.attempt,
            summary=f"{who} {have} been heard again"
            if is_over
            else f"{who} {have} been silent for more than {max(3 * self.interval_seconds, 60.0) + self.slack_seconds:.0f} s at step {onset}: "
            "whether training goes on there is not known",
            evidence={"silent": len(nodes), "of_nodes": len(self.pulses), "window": [max(0, onset - 50), max(self.step, onset)]},
        )
