"""From frames to steps: rows of many nodes, early and late, become one step after another with all ranks in it.

A step is closed when every rank that is waited for has reached it or a later one; or, `deadline_seconds` after its first row came, without
the ranks that are still missing, which are not waited for again until they report; a step that only a few have reached while most go on
below it is dropped. Steps close in order. A rank that goes back to an earlier step begins a new lap, so a rewind inside an attempt is not
taken for lateness. Time is what the frame log noted at the frame's arrival, so the same log gives the same steps after any restart; only where no
frame comes any more the clock closes the last ones (`overdue`).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from holter.frame import NODE_RANK, Event, Frame
from numpy.typing import NDArray

from holter_monitor.stream.cells import SAMPLED, Keys, Received, Rows, fit
from holter_monitor.stream.placing import LAP, MAX_STEP, Placed, before_last, before_turn, before_unfit, place
from holter_monitor.stream.steps import MAX_RANKS, Mask, Sample, Step, Values

LEAVING = frozenset({"rank_finished", "rank_failed", "rank_terminated", "rank_lost"})
BULKY = frozenset({"fingerprint", "watch"})
"""Events that only detectors of events want; they are not hung on a step."""
MAX_METRICS = 1_024
MAX_EVENTS = 256
"""Events kept for one step, and steps' events kept in wait."""
FEW = 4
"""So many frames can be taken in at once for less than one after another."""


@dataclass(slots=True)
class Pending:
    """A step that some ranks have reached."""

    received: float
    matrix: Values
    present: Mask
    time_ns: int = 0


@dataclass(slots=True)
class StepAligner:
    """Aligns the frames of one attempt. Memory is bounded: `max_cells` values in all pending steps together."""

    attempt: str
    world_size: int = 1
    deadline_seconds: float = 20.0
    max_pending: int = 1024
    max_cells: int = 8_000_000
    rows: dict[str, int] = field(default_factory=dict)
    """The metrics' places in the matrices, in order of appearance."""
    reached: Keys = field(default_factory=lambda: np.empty(0, np.int64))
    """For each rank the lap and step it has reached, as one number; -1 before its first."""
    waited: Mask = field(default_factory=lambda: np.empty(0, np.bool_))
    pending: dict[int, Pending] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    closed: int = -1
    heard: Values = field(default_factory=lambda: np.empty(0))
    """For each rank when it last reported a step of its own."""
    held: Values = field(default_factory=lambda: np.empty((0, 0)))
    """The newest value of each sampled metric, (metrics, ranks); NaN and absent are told apart by `held_present`."""
    held_present: Mask = field(default_factory=lambda: np.empty((0, 0), np.bool_))
    events: list[tuple[int, Event]] = field(default_factory=list)
    newest_seq: dict[str, int] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    sampled: list[int] = field(default_factory=list)
    """Places of the metrics that samplers took."""

    def __post_init__(self) -> None:
        if not len(self.reached):
            self._grow(max(1, min(self.world_size, MAX_RANKS)))

    def add(self, frame: Frame, received: float) -> list[Step]:
        """Takes a frame in; gives the steps that can now be closed, oldest first."""
        if frame.rows:
            rows, in_order = Rows.of([(frame, received)]), frame.seq > self.newest_seq.get(_stream(frame), -1)
            if (rows.rank == NODE_RANK).any():
                self.samples += rows.samples(self.attempt, rows.block({name: place for place, name in enumerate(frame.metrics)}))[0]
            self._note(rows.frames)
            good = self._admit(frame, rows)
            if good.any():
                self._take(self._place(rows, good, in_order))
        for event in frame.events:
            self._take_event(event)
        return self._close(received)

    def add_quiet(self, arrivals: Sequence[Received]) -> list[list[Sample]]:
        """Takes in at once as many of the first frames as close no step, turn no rank back and bring nothing that is not known; for each of them, what
        it says of its host. The state is then the same as after one `add` after another. Often none can be taken so."""
        arrivals = self._plain(arrivals)
        if len(arrivals) < FEW:
            return []
        rows, behind = Rows.of(arrivals), self.waited & (self.reached <= self.closed)
        rows = rows.first(min(before_unfit(rows, len(self.reached)), before_last(rows, behind), self._before_deadline(arrivals)))
        if len(rows.frames) < FEW:
            return []
        placed = self._place(rows, rows.rank >= 0, True)
        count = before_turn(placed, self.closed, self.pending, self._limit - len(self.order))
        if count < FEW:
            return []
        if count < len(rows.frames):
            rows = rows.first(count)
            placed = self._place(rows, rows.rank >= 0, True)
        self._note(rows.frames)
        self._take(placed)
        return rows.samples(self.attempt, placed.block)

    def take_samples(self) -> list[Sample]:
        samples, self.samples = self.samples, []
        return samples

    def overdue(self, now: float) -> list[Step]:
        """Closes what even a frame that came `deadline_seconds` ago would have closed: nothing comes any more, or ranks that never reported are waited for."""
        return self._close(now - self.deadline_seconds)

    def finish(self) -> list[Step]:
        """Closes whatever is pending."""
        return self._close(float("inf"))

    # ---------------------------------------------------------------- many frames at once

    def _plain(self, arrivals: Sequence[Received]) -> Sequence[Received]:
        """The first frames, at most one of each node's agent, that hold nothing but rows of known metrics, in order."""
        seen: set[str] = set()
        known: set[int] = set()
        for count, (frame, _) in enumerate(arrivals[: len(self.newest_seq)]):
            stream, layout = _stream(frame), frame.layout
            if frame.events or frame.attempt != self.attempt or layout is None:
                return arrivals[:count]
            if stream in seen or frame.seq <= self.newest_seq.get(stream, -1):
                return arrivals[:count]
            if id(layout) not in known and not layout.metrics.keys() <= self.rows.keys():
                return arrivals[:count]
            known.add(id(layout))
            seen.add(stream)
        return arrivals[: len(self.newest_seq)]

    def _before_deadline(self, arrivals: Sequence[Received]) -> int:
        """How many frames come before the one at which the oldest step that is pending is past its deadline."""
        times = np.array([received for _, received in arrivals])
        oldest = self.pending[self.order[0]].received if self.order else times.min()
        over = times - oldest >= self.deadline_seconds
        return int(over.argmax()) if over.any() else len(arrivals)

    # ---------------------------------------------------------------- rows

    def _note(self, frames: Sequence[Frame]) -> None:
        """Remembers of each agent its newest frame."""
        for frame in frames:
            if frame.rows:
                stream = _stream(frame)
                self.newest_seq[stream] = max(frame.seq, self.newest_seq.pop(stream, -1))
                if len(self.newest_seq) > 2 * MAX_RANKS:
                    del self.newest_seq[next(iter(self.newest_seq))]

    def _admit(self, frame: Frame, rows: Rows) -> Mask:
        """The rows that can be taken; makes place for their ranks and metrics."""
        good = (rows.rank >= 0) & (rows.rank < self._most_ranks()) & (rows.step >= -1) & (rows.step <= MAX_STEP)
        self._drop("row_out_of_range", int((~good & (rows.rank != NODE_RANK)).sum()))
        if good.any():
            highest = int(rows.rank[good].max())
            if highest >= len(self.reached):
                self._grow(highest + 1)
            for name in frame.metrics:
                self._row(name)
        return good

    def _place(self, rows: Rows, good: Mask, in_order: bool) -> Placed:
        return place(rows, rows.block(self.rows), good, reached=self.reached, in_order=in_order)

    def _take(self, placed: Placed) -> None:
        rows, own = placed.rows, placed.own
        self.reached = placed.reached
        self.waited[rows.rank[own]] = True
        self.heard[rows.rank[own]] = rows.received[own]
        self._hold_late(placed, np.flatnonzero(placed.good & (placed.keys <= self.closed)))
        chosen = np.flatnonzero(placed.good & (placed.keys > self.closed))
        for key in np.unique(placed.keys[chosen]).tolist():
            self._scatter(key, chosen[placed.keys[chosen] == key], placed)

    def _scatter(self, key: int, chosen: NDArray[np.intp], placed: Placed) -> None:
        rows, step = placed.rows, self.pending.get(key)
        if step is None:
            shape = (len(self.rows), len(self.reached))
            step = self.pending[key] = Pending(float(rows.received[chosen[0]]), np.full(shape, np.nan), np.zeros(shape, np.bool_))
            insort(self.order, key)
        elif step.matrix.shape != (len(self.rows), len(self.reached)):
            step.matrix, step.present = fit(step.matrix, step.present, len(self.rows), len(self.reached))
        placed.block.write(step.matrix, step.present, chosen, rows.rank[chosen])
        step.time_ns = max(step.time_ns, int(rows.time_ns[chosen].max()))

    def _hold_late(self, placed: Placed, chosen: NDArray[np.intp]) -> None:
        """A sample of a step that is closed counts for the next one; a rank's own late row is only counted."""
        if not len(chosen):
            return
        self.held, self.held_present = fit(self.held, self.held_present, len(self.rows), len(self.reached))
        block = placed.block
        own = block.present[~block.sampled][:, chosen].any(axis=0) & (placed.keys[chosen] >= 0)
        self._drop("late_row", int(own.sum()))
        block.of_samplers().write(self.held, self.held_present, chosen, placed.rows.rank[chosen])

    # ---------------------------------------------------------------- events

    def _take_event(self, event: Event) -> None:
        word, rank, step = event["event"], event.get("rank"), event.get("step")
        if word == "rank_started":
            size = (event.get("attrs") or {}).get("world_size")
            if isinstance(size, int) and len(self.reached) < size <= self._most_ranks():
                self._grow(size)
        if word in LEAVING and isinstance(rank, int) and 0 <= rank < len(self.waited):
            self.waited[rank] = False
        if word in BULKY:
            return
        if len(self.events) >= MAX_EVENTS:
            self._drop("event", 1)
            return
        known = isinstance(rank, int) and 0 <= rank < len(self.reached)
        lap = max(0, int(self.reached[rank] if known else self.reached.max())) // LAP
        self.events.append((-1 if not isinstance(step, int) or step < 0 else lap * LAP + min(step, MAX_STEP), event))

    # ---------------------------------------------------------------- closing

    def _close(self, received: float) -> list[Step]:
        steps = []
        limit = self._limit
        while self.order:
            key = self.order[0]
            late = self.waited & (self.reached < key)
            if late.any():
                if received - self.pending[key].received < self.deadline_seconds and len(self.order) <= limit:
                    break
                if self._is_alone(key, late):
                    self._drop("ran_ahead", int(self.pending.pop(self.order.pop(0)).present.any(axis=0).sum()))
                    continue
                self.waited &= ~late
            steps.append(self._closed_step(self.order.pop(0)))
        return steps

    def _is_alone(self, key: int, late: Mask) -> bool:
        """Has a minority reached this step, or a new lap, while most go on below it? The slip of one rank must not carry the others away."""
        going = late & (self.heard > self.pending[key].received)
        return 2 * int(going.sum()) > int(self.waited.sum())

    def _closed_step(self, key: int) -> Step:
        pending = self.pending.pop(key)
        self.closed = key
        matrix, present = fit(pending.matrix, pending.present, len(self.rows), len(self.reached))
        sampled = self.sampled
        if sampled:
            self.held, self.held_present = fit(self.held, self.held_present, len(self.rows), len(self.reached))
            self.held[sampled] = matrix[sampled] = np.where(present[sampled], matrix[sampled], self.held[sampled])
            self.held_present[sampled] = present[sampled] = present[sampled] | self.held_present[sampled]
        ranks = np.arange(len(self.reached), dtype=np.int32)
        step = Step.of_ranks(key % LAP, ranks, self.rows, matrix, present, time=pending.time_ns / 1e9, attempt=self.attempt)
        step.missing = np.flatnonzero((self.reached < key) & (self.reached >= 0)).astype(np.int32)
        step.say([event for at, event in self.events if at <= key])
        self.events = [(at, event) for at, event in self.events if at > key]
        return step

    # ---------------------------------------------------------------- places

    def _row(self, name: str) -> int | None:
        if name not in self.rows:
            if len(self.rows) >= MAX_METRICS or (len(self.rows) + 1) * len(self.reached) > self.max_cells:
                self._drop("metric", 1)
                return None
            if name.startswith(SAMPLED):
                self.sampled.append(len(self.rows))
            self.rows[name] = len(self.rows)
        return self.rows[name]

    def _drop(self, reason: str, count: int) -> None:
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    @property
    def _limit(self) -> int:
        """How many steps may be pending."""
        return max(8, min(self.max_pending, self.max_cells // max(1, len(self.rows) * len(self.reached))))

    def _most_ranks(self) -> int:
        """So many that one step of all metrics stays within `max_cells`."""
        return min(MAX_RANKS, self.max_cells // max(1, len(self.rows)))

    def _grow(self, size: int) -> None:
        more = size - len(self.reached)
        self.reached = np.r_[self.reached, np.full(more, -1, np.int64)]
        self.waited = np.r_[self.waited, np.ones(more, np.bool_)]
        self.heard = np.r_[self.heard, np.zeros(more)]


def _stream(frame: Frame) -> str:
    """One life of a node's agent: its frames are numbered."""
    return f"{frame.node} {frame.boot}"
