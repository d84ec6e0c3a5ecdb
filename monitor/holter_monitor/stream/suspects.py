"""Ranks and nodes that have left their place among the ranks and that all others wait for: who they are, what they cost, when it is over."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from holter_monitor.stream.ranks import RankShift, by_node, named
from holter_monitor.stream.steps import Topology, Values

ROTATING_STEPS = 1000
"""Suspects that follow each other within so many steps are a trouble that moves."""


@dataclass(slots=True)
class Suspect:
    scope: str
    onset: int
    ranks: list[int]
    node: str
    worst: float
    """Largest mean shift so far, in the unit of the series."""
    lost: float = 0.0
    """Seconds."""
    steps: int = 0
    said_steps: int = 0
    calm: int = 0
    cause: str = ""
    before: int = 0
    """How many others were suspected within `ROTATING_STEPS` before this one."""

    @property
    def who(self) -> str:
        return f"node {self.node} ({named(self.ranks)})" if self.node else named(self.ranks)

    @property
    def pattern(self) -> str:
        """ "chronic": the same one stays slow; "rotating": the third one at least in short time."""
        return "rotating" if self.before >= 2 else "chronic"


@dataclass(kw_only=True)
class Suspects:
    """What the detectors of single ranks share: places are learned by a `RankShift`; a suspect is followed until it has been back for a while.

    A node's trouble shows on one of its ranks first: once `node_share` of its ranks lean, the node is named and its ranks are no longer.
    """

    least: float
    """The smallest lasting shift worth finding, in the unit of the series."""
    calm_steps: int
    node_share: float = 0.75
    shift: RankShift = field(init=False)
    open: dict[str, Suspect] = field(default_factory=dict)
    numbers: deque[int] = field(default_factory=lambda: deque(maxlen=64))
    """The last step numbers, to name an onset."""
    earlier: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=8))
    """Step and scope of those suspected last."""

    def __post_init__(self) -> None:
        self.shift = RankShift(least=self.least)

    def update(self, values: Values, number: int) -> list[int] | None:
        """The ranks whose shift is proven, where someone is or was suspected; None while places are learned or nothing is to be done."""
        self.numbers.append(number)
        proven = self.shift.update(values)
        if proven is None or not (self.open or proven.any()):
            return None
        return [int(rank) for rank in proven.nonzero()[0]]

    def learn_again(self) -> None:
        """The ranks stand elsewhere now."""
        self.shift = RankShift(least=self.least)

    def next_attempt(self) -> list[Suspect]:
        """A new attempt may have other nodes under the same ranks. Those that were open are over."""
        ended = list(self.open.values())
        self.open = {}
        self.learn_again()
        return ended

    def name(self, found: Iterable[int], topology: Topology) -> tuple[list[Suspect], list[Suspect]]:
        """`(new suspects, open ones that are now part of a node)`. The caller adds cause and cost."""
        known = {rank for suspect in self.open.values() for rank in suspect.ranks}
        fresh = [rank for rank in found if rank not in known]
        if not fresh:
            return [], []
        nodes, _ = by_node(self.shift.with_leaning([*fresh, *known], topology), topology, self.node_share)
        begun, merged = [], []
        for node, ranks in nodes.items():
            if f"node {node}" in self.open or not set(ranks) & set(fresh):
                continue
            merged += [self.open.pop(scope) for scope in [s for s, suspect in self.open.items() if set(suspect.ranks) <= set(ranks)]]
            begun.append(self._suspect(f"node {node}", ranks, node))
        single = [rank for rank in fresh if topology.node_of.get(rank) not in nodes]
        return begun + [self._suspect(f"rank {rank}", [rank], "") for rank in single], merged

    def follow(self, cost: Callable[[float], float]) -> tuple[list[Suspect], list[Suspect]]:
        """`(suspects that are over, suspects that have lasted twice as long as when they were told)`; `cost`: a shift in seconds of this step."""
        over, lasting = [], []
        newest = self.shift.history[self.shift.count % self.shift.kept_steps]
        for scope, suspect in list(self.open.items()):
            suspect.steps += 1
            suspect.lost += max(0.0, cost(float(newest[suspect.ranks].max())))
            mean = float(self.shift.history[:, suspect.ranks].mean(axis=0).max())
            suspect.worst = max(suspect.worst, mean)
            suspect.calm = suspect.calm + 1 if mean < max(0.4 * self.least, 0.25 * suspect.worst) else 0
            if suspect.calm >= self.calm_steps:
                del self.open[scope]
                self.shift.forget(suspect.ranks)
                over.append(suspect)
            elif suspect.steps >= max(50, 2 * suspect.said_steps):
                suspect.said_steps = suspect.steps
                lasting.append(suspect)
        return over, lasting

    def _suspect(self, scope: str, ranks: list[int], node: str) -> Suspect:
        begun = min((int(self.shift.begun[rank]) for rank in ranks if self.shift.high[rank] > 0.0), default=self.shift.count)
        ago = min(self.shift.count - begun, len(self.numbers) - 1)
        onset = self.numbers[-1 - ago]
        suspect = Suspect(scope, onset, ranks, node, max(self.shift.shift(rank) for rank in ranks), steps=ago + 1, said_steps=ago + 1)
        suspect.before = len({who for step, who in self.earlier if onset - step <= ROTATING_STEPS and who != scope})
        self.open[scope] = suspect
        self.earlier.append((onset, scope))
        return suspect
