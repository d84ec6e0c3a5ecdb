"""What a report shows of a run: each incident's surroundings in full, the whole run thinned; bounded, however long the log."""

from __future__ import annotations

from array import array
from bisect import bisect
from collections import deque
from dataclasses import dataclass, field
from math import inf, isnan

from holter_monitor.episodes import Trouble
from holter_monitor.steps import Step

SHOWN = ("loss", "grad_norm", "lr", "eval_loss", "tokens_per_second", "samples_per_second", "step_time_seconds", "data_wait_seconds", "mfu")
"""Metrics that are drawn for the whole run."""
_OF_MANY = frozenset((*SHOWN, "compute_seconds", "consumed_tokens"))
"""What is averaged over many ranks for the pictures."""
BEFORE, AFTER = 80, 40
"""Records around an incident's detection that are kept for its picture."""
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
class Frame:
    """The surroundings of one incident: the metric's points before and after its detection."""

    points: list[Point]
    metric: str
    room: int = AFTER


@dataclass(slots=True)
class Trace:
    is_whole: bool = False
    metrics: dict[str, Thinned] = field(default_factory=dict)
    frames: dict[int, Frame] = field(default_factory=dict)
    """By the incident's place in the list."""
    numbers: array[int] = field(default_factory=lambda: array("q"))
    """The step of each record, where the whole is kept: labels speak of steps, scores of records."""
    tokens: Thinned = field(default_factory=Thinned)
    recent: deque[tuple[int, dict[str, float]]] = field(default_factory=lambda: deque(maxlen=BEFORE))
    filling: list[Frame] = field(default_factory=list)

    def add(self, step: Step) -> None:
        named = step.metrics if len(step.ranks) == 1 else [metric for metric in step.metrics if metric in _OF_MANY]
        values = {metric: value for metric in named if (value := step.mean(metric)) is not None}
        self.recent.append((step.number, values))
        if self.is_whole:
            self.numbers.append(step.number)
        if "consumed_tokens" in values:
            self.tokens.add(step.number, values["consumed_tokens"])
        for metric in SHOWN:
            value = values.get(metric)
            if value is not None:
                thinned = self.metrics.get(metric)
                if thinned is None:
                    thinned = self.metrics[metric] = Thinned()
                if self.is_whole:
                    thinned.add(step.number, value)
        if self.filling:
            self._fill(step.number, values)

    def _fill(self, number: int, values: dict[str, float]) -> None:
        for frame in self.filling:
            frame.room -= 1
            if frame.metric in values:
                frame.points.append((number, values[frame.metric]))
        self.filling = [frame for frame in self.filling if frame.room > 0]

    def frame(self, trouble: Trouble) -> None:
        """Keeps what surrounds a new incident."""
        trouble.onset_tokens, trouble.detected_tokens = self.tokens_at(trouble.onset_step), self.tokens_at(trouble.detected_step)
        metric = trouble.metric or ""
        if len(self.frames) >= MAX_FRAMES or not metric:
            return
        frame = Frame([(number, values[metric]) for number, values in self.recent if metric in values], metric)
        self.frames[trouble.place] = frame
        self.filling.append(frame)

    def tokens_at(self, step: int) -> float | None:
        """Tokens consumed by then, None where the log does not count them. Exact for a recent step, else from the thinned series."""
        if self.tokens.high is None and not self.tokens.points:
            return None
        exact = next((values["consumed_tokens"] for number, values in self.recent if number == step and "consumed_tokens" in values), None)
        if exact is not None:
            return exact
        place = bisect(self.tokens.points, (step, inf))
        return self.tokens.points[place - 1][1] if place else None

    def finish(self) -> None:
        for thinned in self.metrics.values():
            thinned._close()
