"""What a report shows of a run: each incident's surroundings in full, the whole run thinned; bounded, however long the log."""

from __future__ import annotations

from array import array
from bisect import bisect
from collections import deque
from dataclasses import dataclass, field
from math import inf, isfinite, isnan

import numpy as np

from holter_monitor.diagnosis import Event, Signal
from holter_monitor.offline.episodes import Trouble
from holter_monitor.stream.steps import Step

SHOWN: tuple[str, ...] = (
    "loss",
    "grad_norm",
    "lr",
    "eval_loss",
    "tokens_per_second",
    "samples_per_second",
    "step_time_seconds",
    "data_wait_seconds",
    "mfu",
)
"""Metrics that are drawn for the whole run."""
_DRAWN = (*SHOWN, "consumed_tokens")
_OF_MANY = (*_DRAWN, "compute_seconds")
"""What is averaged over many ranks for the pictures."""
BEFORE, AFTER = 80, 40
"""Records around an incident's detection that are kept for its picture."""
LEADING_STEPS = 10
"""The last steps before an onset, where a precursor shows."""
MAX_EVENTS = 5000
"""Declared events of a run that are remembered for the diagnosis."""
MAX_RANKS_KEPT = 2048
"""Up to so many ranks the last steps are kept with all their ranks (30 MB at 24 metrics); beyond, only the means."""
MAX_FRAMES = 500
"""Incidents of one run with a picture of their own."""
POINTS = 1000
"""Points of a metric that are kept of the whole run, at most twice as many."""

Point = tuple[int, float]


@dataclass(slots=True)
class Thinned:
    """A series of bounded length that keeps its extremes: each bucket's lowest and highest point, the bucket doubling when space is full."""

    points: list[Point] = field(default_factory=list)
    bucket: int = 1
    low: Point | None = None
    high: Point | None = None
    count: int = 0

    def add(self, step: int, value: float) -> None:
        if isnan(value):
            return
        if self.low is None or value < self.low[1]:
            self.low = (step, value)
        if self.high is None or value > self.high[1]:
            self.high = (step, value)
        self.count += 1
        if self.count >= self.bucket:
            self._close()

    def _close(self) -> None:
        if self.low is not None and self.high is not None:
            self.points += [self.low] if self.low == self.high else sorted((self.low, self.high))
        self.low = self.high = None
        self.count = 0
        if len(self.points) >= 2 * POINTS:
            self._halve()

    def _halve(self) -> None:
        self.bucket *= 2
        kept: list[Point] = []
        for start in range(0, len(self.points), 4):
            four = self.points[start : start + 4]
            ends = {min(four, key=lambda point: point[1]), max(four, key=lambda point: point[1])}
            kept += [point for point in four if point in ends]
        self.points = kept


@dataclass(slots=True)
class Move:
    """One metric before an onset and since."""

    before: float = 0.0
    num_before: int = 0
    since: float = 0.0
    num_since: int = 0
    peak: float = -inf
    lowest: float = inf
    leading: float | None = None

    def add(self, steps_after: int, value: float) -> None:
        if not isfinite(value):
            return
        if steps_after < -LEADING_STEPS:
            self.before += value
            self.num_before += 1
        elif steps_after < 0:
            self.leading = value if self.leading is None else max(self.leading, value)
        else:
            self.since += value
            self.num_since += 1
            self.peak, self.lowest = max(self.peak, value), min(self.lowest, value)

    @property
    def signal(self) -> Signal | None:
        """As a diagnosis wants it; None where it was not logged on both sides."""
        if not self.num_before or not self.num_since:
            return None
        before, since = self.before / self.num_before, self.since / self.num_since
        return Signal(before=before, since=since, peak=self.peak, lowest=self.lowest, leading=self.leading)


@dataclass(slots=True)
class Frame:
    """The surroundings of one incident: its metric's points before and after its detection, and how every metric moved at its onset."""

    metric: str
    onset: int
    rank: int | None = None
    """Whose values are drawn; None: the mean of all."""
    points: list[Point] = field(default_factory=list)
    moves: dict[str, Move] = field(default_factory=dict)
    room: int = AFTER

    @property
    def title(self) -> str:
        return self.metric if self.rank is None else f"{self.metric} of rank {self.rank}"

    def add(self, number: int, record: Step | dict[str, float]) -> None:
        values = record if isinstance(record, dict) else _means(record)
        for metric, value in values.items():
            move = self.moves.get(metric)
            if move is None:
                move = self.moves[metric] = Move()
            move.add(number - self.onset, value)
        drawn = values.get(self.metric) if self.rank is None or isinstance(record, dict) else _of_rank(record, self.metric, self.rank)
        if drawn is not None:
            self.points.append((number, drawn))


@dataclass(slots=True)
class Trace:
    is_whole: bool = False
    metrics: dict[str, Thinned] = field(default_factory=dict)
    frames: dict[int, Frame] = field(default_factory=dict)
    """By the incident's place in the list."""
    numbers: array[int] = field(default_factory=lambda: array("q"))
    """The step of each record, where the whole is kept: labels speak of steps, scores of records."""
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    tokens: Thinned = field(default_factory=Thinned)
    seen: list[str] = field(default_factory=list)
    """The metrics of the last record."""
    recent: deque[tuple[int, Step | dict[str, float]]] = field(default_factory=lambda: deque(maxlen=BEFORE))
    has_ranks: bool = False
    filling: list[Frame] = field(default_factory=list)

    def add(self, step: Step) -> None:
        values = step if len(step.ranks) <= MAX_RANKS_KEPT else _means(step)
        self.has_ranks |= len(step.ranks) > 1
        if step.events:
            self.events += [Event(word=event["event"], step=step.number, at=step.time, attrs=event["attrs"]) for event in step.events]
        self.recent.append((step.number, values))
        if step.metrics != self.seen or self.is_whole:
            self._add_series(step)
        if "consumed_tokens" in self.metrics and (consumed := step.mean("consumed_tokens")) is not None:
            self.tokens.add(step.number, consumed)
        if self.filling:
            self._fill(step)

    def _add_series(self, step: Step) -> None:
        self.seen = step.metrics
        if self.is_whole:
            self.numbers.append(step.number)
        for metric in _DRAWN:
            value = step.mean(metric)
            if value is None:
                continue
            thinned = self.metrics.get(metric)
            if thinned is None:
                thinned = self.metrics[metric] = Thinned()
            if self.is_whole:
                thinned.add(step.number, value)

    def _fill(self, step: Step) -> None:
        for frame in self.filling:
            frame.room -= 1
            frame.add(step.number, step)
        self.filling = [frame for frame in self.filling if frame.room > 0]

    def frame(self, trouble: Trouble) -> None:
        """Keeps what surrounds a new incident."""
        trouble.onset_tokens, trouble.detected_tokens = self.tokens_at(trouble.onset_step), self.tokens_at(trouble.detected_step)
        if len(self.frames) >= MAX_FRAMES:
            return
        frame = Frame(trouble.metric or "", trouble.onset_step, trouble.ranks[0] if len(trouble.ranks) == 1 and self.has_ranks else None)
        for number, record in self.recent:
            frame.add(number, record)
        self.frames[trouble.place] = frame
        self.filling.append(frame)

    def tokens_at(self, step: int) -> float | None:
        """Tokens consumed by then, None where the log does not count them. Exact for a recent step, else from the thinned series."""
        if self.tokens.high is None and not self.tokens.points:
            return None
        exact = next((_value(values, "consumed_tokens") for number, values in self.recent if number == step), None)
        if exact is not None:
            return exact
        place = bisect(self.tokens.points, (step, inf))
        return self.tokens.points[place - 1][1] if place else None

    def finish(self) -> None:
        for thinned in self.metrics.values():
            thinned._close()


def _means(step: Step) -> dict[str, float]:
    """Every metric of a step of one rank; of many ranks the mean of those that pictures and diagnosis want."""
    metrics = step.metrics if len(step.ranks) == 1 else _OF_MANY
    return {metric: value for metric in metrics if (value := step.mean(metric)) is not None}


def _of_rank(step: Step, metric: str, rank: int) -> float | None:
    place = int(np.searchsorted(step.ranks, rank))
    column = step.column(metric)
    if column is None or place >= len(step.ranks) or step.ranks[place] != rank or not column[1][place]:
        return None
    return float(column[0][place])


def _value(values: Step | dict[str, float], metric: str) -> float | None:
    return values.get(metric) if isinstance(values, dict) else values.mean(metric)
