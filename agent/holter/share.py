"""Keeps what is done at every step to a small share of the step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Share:
    """The time that something takes of the loop that it is done in."""

    most: float = 0.0005
    always: int = 64
    """So many times it is done whatever it takes: there is no share of nothing."""
    count: int = 0
    taken_ns: int = 0
    since_ns: int = 0

    def may_go_on(self, began_ns: int, ended_ns: int) -> bool:
        """Count one more time that it was done; whether it may be done again."""
        if not self.count:
            self.since_ns = began_ns
        self.count += 1
        self.taken_ns += ended_ns - began_ns
        return self.count < self.always or self.taken_ns <= self.most * (ended_ns - self.since_ns)
