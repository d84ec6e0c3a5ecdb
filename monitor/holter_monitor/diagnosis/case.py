"""What a diagnosis may look at: the incident, what its neighbours say, how the run's signals moved, what was declared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from holter_monitor.incidents import Incident
from holter_monitor.ranges import folded, spans


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One metric before the onset and since, over the ranks (or hosts)."""

    before: float
    """Mean of the steps before the onset."""
    since: float
    """Mean of the steps from the onset on."""
    peak: float
    """The highest value since the onset, of any rank."""
    peak_rank: int | None = None
    lowest: float | None = None
    """The lowest value since the onset, of any rank."""
    leading: float | None = None
    """The highest value in the last ten steps before the onset: a precursor."""

    @property
    def ratio(self) -> float:
        return self.since / self.before if self.before > 0 else (1.0 if self.since <= 0 else float("inf"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that was declared or seen around the onset."""

    word: str
    step: int | None = None
    rank: int | None = None
    node: str = ""
    at: float = 0.0
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One incident as the causes see it. Missing signals are missing, not zero."""

    incident: Incident
    signals: Mapping[str, Signal] = field(default_factory=dict)
    """By metric; those of hosts with their suffix (`host_disk_read_latency_seconds.nvme0n1`)."""
    events: Sequence[Event] = ()
    batches: Sequence[Event] = ()
    """What is known of the batches that a loss incident spans, oldest first: hash or id of each step's, documents where the loader told them."""
    others: Sequence[Incident] = ()
    """The other incidents of the run that began about the same time."""
    world_size: int = 1

    def family(self, metric: str) -> dict[str, Signal]:
        """The signals of this name, with or without a suffix."""
        return {name: signal for name, signal in self.signals.items() if name == metric or name.startswith(f"{metric}.")}

    def knows(self, name: str) -> bool:
        """Whether the run recorded this metric (or its batches, "batch") around the onset."""
        return bool(self.batches) if name == "batch" else bool(self.family(name))

    def near(self, *words: str, before: int = 200, after: int = 5) -> list[Event]:
        """The events of these words around the onset, in steps; those without a step count as well."""
        onset = self.incident.episode_onset
        return [e for e in self.events if e.word in words and (e.step is None or onset - before <= e.step <= onset + after)]

    @property
    def is_everywhere(self) -> bool:
        """Whether it is about all ranks, as far as is known."""
        ranks = self.incident.ranks
        return len(ranks) >= max(2, 0.9 * self.world_size) if ranks else not self.incident.nodes

    @property
    def last_step(self) -> int:
        """The last step that its findings speak of."""
        told = [finding.detected_step if finding.end_step is None else finding.end_step for finding in self.incident.findings.values()]
        return max([self.incident.detected_step if self.incident.end_step is None else self.incident.end_step, *told])

    @property
    def place(self) -> str:
        """Where it is, for sentences: "rank 3 on gpu-01", "all ranks"."""
        ranks, nodes = self.incident.ranks, self.incident.nodes
        first = self.incident.evidence.get("first")
        if isinstance(first, int):  # of many lost ranks, the one that the others followed
            return f"rank {first} on {nodes[0]}" if len(nodes) == 1 else f"rank {first}"
        where = "all ranks" if self.is_everywhere else f"{'ranks' if len(ranks) > 1 else 'rank'} {spans(ranks)}" if ranks else ""
        return " on ".join(filter(None, [where, folded(nodes) if nodes else ""]))

    @property
    def checkpoint(self) -> Event | None:
        """The newest checkpoint before the onset."""
        saved = [e for e in self.events if e.word == "checkpoint" and e.step is not None and e.step < self.incident.onset_step]
        return max(saved, key=lambda event: event.step or 0, default=None)
