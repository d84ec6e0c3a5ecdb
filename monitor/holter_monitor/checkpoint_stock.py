"""What checkpoints a run has, as its node agent last told: the newest whole one, its copy, which retention takes next, how long the room lasts. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from holter_monitor.stream.checkpoint_news import Entry, News


@dataclass(frozen=True, slots=True)
class Stock:
    news: News
    """The newest with entries; of a place that has never answered, the newest of all."""
    problem: str
    """The place does not answer any more; the entries are what it last held."""
    keep: int | None
    """How many retention leaves: declared, or how many there were whenever the oldest went and a newer one stayed. None: nothing was ever deleted."""
    interval_seconds: float | None
    """From one to the next, by when they were written."""

    @property
    def newest(self) -> Entry | None:
        return self.news.whole[-1] if self.news.whole else None

    @property
    def newest_copied(self) -> Entry | None:
        return next((entry for entry in reversed(self.news.whole) if entry.has_copy), None)

    @property
    def expiring(self) -> list[str]:
        """Those that go when the next one has come."""
        here = [entry.name for entry in self.news.whole if entry.state == "complete"]
        return here[: max(0, len(here) + 1 - self.keep)] if self.keep else []

    @property
    def room(self) -> int | None:
        """Checkpoints, as large as the newest, that still fit."""
        return self.news.free // self.newest.bytes if self.news.free is not None and self.newest and self.newest.bytes else None

    @property
    def full_seconds(self) -> float | None:
        """Until the place is full at this pace; None where retention makes room, or the pace is not known."""
        return self.room * self.interval_seconds if self.room is not None and self.interval_seconds and not self.keep else None


def stock(told: Sequence[News]) -> Stock | None:
    """Of the news of one place, oldest first."""
    if not told:
        return None
    last = told[-1]
    current = next((each for each in reversed(told) if not each.problem), last)
    written = sorted(entry.written for entry in current.whole if entry.written)
    spans = [b - a for a, b in itertools.pairwise(written) if b > a]
    return Stock(current, last.problem, current.keep or _kept(told), median(spans) if spans else None)


def _kept(told: Sequence[News]) -> int | None:
    """How many were left, at the median of the times when older ones went and the newest stayed."""
    left = []
    for before, now in itertools.pairwise(told):
        here = {entry.name for entry in now.entries if entry.state == "complete"}
        gone = [entry.step for entry in before.entries if entry.state == "complete" and entry.name not in here]
        stayed = [entry.step for entry in now.entries if entry.state == "complete"]
        if gone and stayed and max(gone) < max(stayed) and not now.problem:
            left.append(len(stayed))
    return int(median(left)) if left else None
