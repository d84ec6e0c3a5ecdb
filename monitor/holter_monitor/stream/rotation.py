"""Is somebody slow at nearly every step, and somebody else each time? No rank leaves its place for long, yet all wait every time."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from math import log, sqrt

import numpy as np

from holter_monitor.stream.steps import Topology, Values


@dataclass(kw_only=True)
class Rotation:
    """The slowest rank of each step, and by how much it stood out of what so many ranks' noise explains. State: 64 steps, whatever the ranks.

    Of N ranks with normal noise the slowest stands sqrt(2 ln N) deviations out; a step counts as held up from three deviations beyond that
    (heavy tails, hiccups) and from `least` on.
    """

    least: float = 0.03
    window: int = 64
    slowest: deque[int] = field(default_factory=lambda: deque(maxlen=64))
    """The rank that held each of the last steps up; -1 for a step that nobody held up."""
    excess: deque[float] = field(default_factory=lambda: deque(maxlen=64))
    """By how much, in the unit of the series; 0.0 for a step that nobody held up."""
    steps: deque[int] = field(default_factory=lambda: deque(maxlen=64))
    usual: float = -1.0
    """Mean excess of the first window: what the run was like from the start. -1.0 until it is known."""

    def push(self, away: Values, sigma: float, number: int) -> float:
        """The step's excess; `away`: each rank's distance from its own place, NaN or 0 for those that do not count."""
        rank = int(np.argmax(away))
        height = float(away[rank])
        limit = max(self.least, sigma * (sqrt(2.0 * log(max(2, len(away)))) + 3.0))
        is_held_up = height > limit
        self.slowest.append(rank if is_held_up else -1)
        self.excess.append(height if is_held_up else 0.0)
        self.steps.append(number)
        if self.usual < 0.0 and len(self.excess) == self.window:
            self.usual = self.mean
        return self.excess[-1]

    @property
    def mean(self) -> float:
        return sum(self.excess) / len(self.excess) if self.excess else 0.0

    @property
    def held_up(self) -> int:
        """Steps of the window that somebody held up."""
        return len(self.slowest) - self.slowest.count(-1)

    @property
    def onset(self) -> int:
        """The first step from which on at least half of the steps were held up."""
        held = [rank >= 0 for rank in self.slowest]
        for place in range(len(held)):
            if held[place] and 2 * sum(held[place:]) >= len(held) - place:
                return self.steps[place]
        return self.steps[-1]

    def ranks(self) -> Counter[int]:
        """Who held how many of the window's steps up."""
        return Counter(rank for rank in self.slowest if rank >= 0)

    def node(self, topology: Topology, share: float = 0.8) -> str:
        """The node that nearly all of them belong to; "" where the trouble moves between nodes."""
        nodes: Counter[str] = Counter()
        for rank, times in self.ranks().items():
            nodes[topology.node_of.get(rank, "")] += times
        name, times = nodes.most_common(1)[0] if nodes else ("", 0)
        return name if name and len(set(topology.node_of.values())) > 1 and times >= share * self.held_up else ""

    def moves(self) -> bool:
        """Whether at least half of the window was held up, by no rank more than half of these times."""
        if len(self.slowest) < self.window or 2 * self.held_up < self.window:
            return False
        return 2 * self.ranks().most_common(1)[0][1] <= self.held_up
