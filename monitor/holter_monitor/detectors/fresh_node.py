"""A node that replaced another and waits for its data from its first step on: the copy of the dataset that it came with is missing or not whole."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.ranks import named
from holter_monitor.stream.steps import Sample, Step

WAIT, STEP_TIME = "data_wait_seconds", "step_time_seconds"
LATENCY = "host_disk_read_latency_seconds"


@dataclass(slots=True)
class Fresh:
    """A node that was in no earlier attempt."""

    node: str
    ranks: list[int]
    joined: int
    """The attempt's first step that was judged."""
    shares: deque[float] = field(default_factory=lambda: deque(maxlen=40))
    """Of the last steps: how much longer its ranks waited than those of the other nodes, as a share of the step."""
    lost: float = 0.0
    worst: float = 0.0
    steps: int = 0
    said_steps: int = 0
    """Steps when it was last told; 0 while it was not."""


@dataclass(kw_only=True)
class FreshNode:
    """The data wait of nodes that joined with an attempt, against the nodes that were there before, at the same steps.

    `RankDataWait` learns each rank's place among the others first, so one that is slow from the start has that as its place. A spare node that
    was not preloaded reads from the shared store what the others have on their disks, and everybody waits with it (the Smol Training Playbook's
    spare nodes: 24 TB to copy, reference/playbook.md, S5). The first steps of an attempt are as slow on every node and cancel out. Before a node
    is needed, `holter preflight --dataset` says the same of it. Cost: nothing while no node is new, 40 µs a step for 16,384 ranks otherwise.
    """

    kind: ClassVar[str] = "data_stall"
    least_share: float = 0.05
    """The extra wait, as a share of the step, that is worth finding."""
    page_share: float = 0.3
    """Extra wait that is worth waking somebody."""
    settle_steps: int = 10
    """Steps of an attempt before its nodes are looked at: the last ones report late."""
    least_steps: int = 20
    """Steps that a new node is judged by."""
    max_share: float = 0.5
    """More new nodes than this share are another allocation, not a replacement."""
    known: list[str] = field(init=False, default_factory=list)
    """The nodes of earlier attempts, the newest 4,096."""
    present: list[str] = field(init=False, default_factory=list)
    attempt: str = field(init=False, default="")
    steps: int = field(init=False, default=0)
    """Of this attempt."""
    step: int = field(init=False, default=0)
    fresh: dict[str, Fresh] = field(init=False, default_factory=dict)
    latency: dict[str, float] = field(init=False, default_factory=dict)
    """Each node's newest read latency, its slowest disk's."""

    def observe(self, step: Step) -> list[Finding] | None:
        said: list[Finding] = []
        if step.attempt != self.attempt:
            said = [self._finding(fresh, end_step=max(step.number, fresh.joined)) for fresh in self.fresh.values() if fresh.said_steps]
            self.known = list(dict.fromkeys([*self.known, *self.present]))[-4096:]
            self.attempt, self.steps, self.present, self.fresh = step.attempt, 0, [], {}
        self.steps += 1
        self.step = step.number
        if self.steps == self.settle_steps:
            self._meet(step)
        elif self.fresh:
            said += self._judge(step)
        return said or None

    def sample(self, sample: Sample) -> None:
        found = [value for name, value in sample.values.items() if name.startswith(LATENCY) and 0.0 < value < 1e6]
        if found and (sample.node in self.latency or len(self.latency) < 4096):
            self.latency[sample.node] = max(found)

    def finish(self) -> list[Finding]:
        return [self._finding(fresh) for fresh in self.fresh.values() if fresh.said_steps]

    def _meet(self, step: Step) -> None:
        """Which nodes of this attempt are new."""
        ranks_of: dict[str, list[int]] = {}
        for rank in map(int, step.ranks):
            node = step.topology.node_of.get(rank)
            if node is not None:
                ranks_of.setdefault(node, []).append(rank)
        self.present = list(ranks_of)
        joined = set(ranks_of) - set(self.known)
        if self.known and 0 < len(joined) <= self.max_share * len(ranks_of):
            self.fresh = {node: Fresh(node, ranks_of[node], step.number) for node in sorted(joined)[:64]}

    def _judge(self, step: Step) -> list[Finding]:
        column, whole = step.column(WAIT), step.median(STEP_TIME)
        if column is None or whole is None or not 0.0 < whole < float("inf") or len(column[0]) != len(step.ranks):
            return []
        waits = np.where(column[1] & np.isfinite(column[0]), column[0], np.nan)
        is_fresh = np.isin(step.ranks, [rank for fresh in self.fresh.values() for rank in fresh.ranks])
        veterans = waits[~is_fresh & ~np.isnan(waits)]
        if not len(veterans):
            return []
        usual, said = float(np.median(veterans)), []
        for fresh in list(self.fresh.values()):
            mine = waits[np.isin(step.ranks, fresh.ranks)]
            mine = mine[~np.isnan(mine)]
            if len(mine):
                said += self._take(fresh, float(np.median(mine)) - usual, whole)
        return said

    def _take(self, fresh: Fresh, beyond: float, whole: float) -> list[Finding]:
        fresh.steps += 1
        fresh.shares.append(beyond / whole)
        fresh.lost += max(0.0, beyond)
        if len(fresh.shares) < self.least_steps:
            return []
        share = float(np.median(fresh.shares))
        fresh.worst = max(fresh.worst, share)
        if share < 0.4 * self.least_share:  # it has what it needs: it is a node like the others
            del self.fresh[fresh.node]
            return [self._finding(fresh, end_step=max(self.step, fresh.joined))] if fresh.said_steps else []
        if share < self.least_share or (fresh.said_steps and fresh.steps < 2 * fresh.said_steps):
            return []
        fresh.said_steps = fresh.steps
        return [self._finding(fresh)]

    def _finding(self, fresh: Fresh, *, end_step: int | None = None) -> Finding:
        others = [value for node, value in self.latency.items() if node not in self.fresh]
        reads = self.latency[fresh.node] / float(np.median(others)) if others and fresh.node in self.latency else None
        slow = f", its disk reads take {reads:.0f} times as long as theirs" if reads is not None and reads > 2.0 else ""
        return Finding(
            kind=self.kind,
            severity=Severity.CRITICAL if fresh.worst >= self.page_share else Severity.WARNING,
            scope=f"new node {fresh.node}",  # beside `RankDataWait`'s word of the same node: the same seconds
            onset_step=fresh.joined,
            detected_step=max(self.step, fresh.joined),
            end_step=end_step,
            metric=WAIT,
            ranks=tuple(fresh.ranks),
            nodes=(fresh.node,),
            score=fresh.worst / self.least_share,
            cost_seconds=fresh.lost,
            summary=f"node {fresh.node} ({named(fresh.ranks)}), new in this attempt, waits for data {fresh.worst:.1%} of a step longer than the nodes "
            f"that were there before{slow}, {fresh.lost:,.0f} s lost by all that wait for it: its copy of the dataset is missing or not whole",
            evidence={
                "cause": "data_wait",
                "pattern": "chronic",
                "replaced": True,
                "share": round(fresh.worst, 4),
                "share_now": round(float(np.median(fresh.shares)), 4),
                "steps": fresh.steps,
                "read_latency_ratio": None if reads is None else round(reads, 2),
                "rules_out": ["the shared file system as a whole: the other nodes' waits are as ever"],
                "window": [fresh.joined, max(self.step, fresh.joined)],
            },
        )
