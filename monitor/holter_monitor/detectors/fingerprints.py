"""Tensors over ranks: duplicated shards, replicas that are not equal, ranks that disagree, memory that changed at rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from holter.frame import Event

from holter_monitor.consistency.at_rest import AtRest
from holter_monitor.consistency.replicas import Replicas
from holter_monitor.consistency.rounds import Round, Rounds
from holter_monitor.consistency.scalars import Scalars
from holter_monitor.consistency.shards import Shards
from holter_monitor.findings import Finding
from holter_monitor.stream.steps import RunFacts, Topology


@dataclass(kw_only=True)
class Fingerprints:
    """Puts the ranks' fingerprints together and lets four judges look at each round: one assembly, since a round of 16,384 ranks is 8 MiB.

    The rules, thresholds and their measurement: docs/parallel.md.
    """

    kind: ClassVar[str] = "tp_duplicate_shards"
    kinds: ClassVar[tuple[str, ...]] = ("tp_duplicate_shards", "replica_mismatch", "rank_disagreement", "memory_corruption")
    rounds: Rounds = field(init=False, default_factory=Rounds)
    shards: Shards = field(init=False, default_factory=Shards)
    replicas: Replicas = field(init=False, default_factory=Replicas)
    scalars: Scalars = field(init=False, default_factory=Scalars)
    at_rest: AtRest = field(init=False, default_factory=AtRest)

    def begin(self, run: RunFacts) -> None:
        self.rounds.world_size = max(1, run.world_size)

    def hear(self, event: Event, topology: Topology) -> list[Finding]:
        if event["event"] == "watch":
            if self.rounds.learn(event):
                self.shards.begin_anew()
                self.scalars.begin_anew()
                self.at_rest = AtRest()
        elif event["event"] == "fingerprint":
            return [finding for round_ in self.rounds.add(event, topology) for finding in self.judge(round_)]
        if event["event"] == "watch_off":
            return [finding for round_ in self.rounds.leave(event, topology) for finding in self.judge(round_)]
        return []

    def finish(self) -> list[Finding]:
        return [finding for round_ in self.rounds.rest(Topology()) for finding in self.judge(round_)]

    def judge(self, round_: Round) -> list[Finding]:
        if not round_.of_ranks:
            return []
        return [
            *self.shards.judge(round_),
            *self.replicas.judge(round_),
            *self.scalars.judge(round_),
            *self.at_rest.judge(round_),
        ]
