"""From frames to steps: rows of many nodes, early and late, become one step after another with all ranks in it.

A step is closed when every rank that is waited for has reached it or a later one; or, `deadline_seconds` after its first row came, without
the ranks that are still missing, which are not waited for again until they report; a step that only a few have reached while most go on
below it is dropped. Steps close in order. A rank that goes back to an earlier step begins a new lap, so a rewind inside an attempt is not
taken for lateness. Time is what the frame log noted at the frame's arrival, so the same log gives the same steps after any restart.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field

import numpy as np
from holter.frame import NODE_RANK, Event, Frame
from numpy.typing import NDArray

from holter_monitor.stream.cells import Block, Keys, block_of, fit, write
from holter_monitor.stream.steps import MAX_RANKS, Mask, Sample, Step, Values

SAMPLED = ("gpu_", "process_", "host_")
"""Prefixes of the metrics that a sampler took: their rows do not say that the rank has reached the step."""
LEAVING = frozenset({"rank_finished", "rank_failed", "rank_terminated", "rank_lost"})
BULKY = frozenset({"fingerprint", "watch"})
"""Events that only detectors of events want; they are not hung on a step."""
MAX_METRICS = 1_024
MAX_STEP = 2**47 - 1
MAX_EVENTS = 256
"""Events kept for one step, and steps' events kept in wait."""
_LAP = 2**47


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
            self._take_rows(frame, received)
        for event in frame.events:
            self._take_event(event)
        return self._close(received)

    def take_samples(self) -> list[Sample]:
        samples, self.samples = self.samples, []
        return samples

    def finish(self) -> list[Step]:
        """Closes whatever is pending."""
        return self._close(float("inf"))

    # ---------------------------------------------------------------- rows

    def _take_rows(self, frame: Frame, received: float) -> None:
        rank = frame.rank.astype(np.int64)
        good = (rank >= 0) & (rank < self._most_ranks()) & (frame.step >= -1) & (frame.step <= MAX_STEP)
        if (rank == NODE_RANK).any():
            self._take_host(frame, np.flatnonzero(rank == NODE_RANK))
        self._drop("row_out_of_range", int((~good & (rank != NODE_RANK)).sum()))
        if not good.any():
            return
        if int(rank[good].max()) >= len(self.reached):
            self._grow(int(rank[good].max()) + 1)
        names = [name for name in frame.metrics if self._row(name) is not None]
        block, present = block_of(frame, names)
        sampled = np.array([name.startswith(SAMPLED) for name in names], np.bool_)
        own = present[~sampled].any(axis=0) | ~present[sampled].any(axis=0) if names else np.ones(frame.rows, np.bool_)
        own &= good & (frame.step >= 0)
        keys = self._keys(frame, rank, own)
        self.heard[rank[own]] = received
        places = np.array([self.rows[name] for name in names], np.int64)
        self._scatter(keys, np.flatnonzero(good), Block(rank, frame.time_ns, places, block, present), received)

    def _take_host(self, frame: Frame, rows: NDArray[np.intp]) -> None:
        for row in rows:
            values = {
                name: float(column.values[row]) for name, column in frame.metrics.items() if column.present is None or column.present[row]
            }
            self.samples.append(Sample(frame.node, self.attempt, int(frame.step[row]), int(frame.time_ns[row]) / 1e9, values))

    def _keys(self, frame: Frame, rank: Keys, own: Mask) -> Keys:
        """Lap and step of each row as one number; moves `reached` on. A sample belongs to the lap its rank is in; -1 = to no step."""
        stream = f"{frame.node} {frame.boot}"
        in_order = frame.seq > self.newest_seq.get(stream, -1)
        self.newest_seq[stream] = max(frame.seq, self.newest_seq.pop(stream, -1))
        if len(self.newest_seq) > 2 * MAX_RANKS:
            del self.newest_seq[next(iter(self.newest_seq))]
        keys = np.full(frame.rows, -1, np.int64)
        mine = np.flatnonzero(own)
        mine = mine[np.argsort(rank[mine], kind="stable")]
        if len(mine):
            who, step = rank[mine], frame.step[mine]
            first = np.r_[True, who[1:] != who[:-1]]
            before = np.where(first, self.reached[who], np.r_[0, step[:-1]])
            lap = np.where(first, np.maximum(before, 0) // _LAP, 0)
            back = (step < np.where(first, np.where(before < 0, -1, before % _LAP), before)) & in_order
            runs = np.cumsum(first) - 1
            turned = np.cumsum(back.astype(np.int64))
            turns = turned - (turned - back)[np.flatnonzero(first)][runs]
            keys[mine] = (lap[np.flatnonzero(first)][runs] + turns) * _LAP + step
            np.maximum.at(self.reached, who, keys[mine])
            self.waited[who] = True
        others = ~own & (rank >= 0) & (rank < len(self.reached)) & (frame.step >= 0)
        keys[others] = np.maximum(self.reached[rank[others]], 0) // _LAP * _LAP + frame.step[others]
        return keys

    def _scatter(self, keys: Keys, rows: NDArray[np.intp], block: Block, received: float) -> None:
        for key in np.unique(keys[rows]):
            chosen = rows[keys[rows] == key]
            if key <= self.closed:
                self._hold_late(int(key), chosen, block)
                continue
            step = self.pending.get(int(key))
            if step is None:
                shape = (len(self.rows), len(self.reached))
                step = self.pending[int(key)] = Pending(received, np.full(shape, np.nan), np.zeros(shape, np.bool_))
                insort(self.order, int(key))
            elif step.matrix.shape != (len(self.rows), len(self.reached)):
                step.matrix, step.present = fit(step.matrix, step.present, len(self.rows), len(self.reached))
            write(step.matrix, step.present, block, chosen)
            step.time_ns = max(step.time_ns, int(block.time_ns[chosen].max()))

    def _hold_late(self, key: int, chosen: NDArray[np.intp], block: Block) -> None:
        """A sample of a step that is closed counts for the next one; a rank's own late row is only counted."""
        self.held, self.held_present = fit(self.held, self.held_present, len(self.rows), len(self.reached))
        sampled = [index for index, place in enumerate(block.places) if int(place) in self.sampled]
        if len(sampled) < len(block.places) and key >= 0:
            own = np.delete(block.present[:, chosen], sampled, axis=0).any(axis=0)
            self._drop("late_row", int(own.sum()))
        if sampled:
            part = Block(block.rank, block.time_ns, block.places[sampled], block.values[sampled], block.present[sampled])
            write(self.held, self.held_present, part, chosen)

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
        lap = max(0, int(self.reached[rank] if known else self.reached.max())) // _LAP
        self.events.append((-1 if not isinstance(step, int) or step < 0 else lap * _LAP + min(step, MAX_STEP), event))

    # ---------------------------------------------------------------- closing

    def _close(self, received: float) -> list[Step]:
        steps = []
        limit = max(8, min(self.max_pending, self.max_cells // max(1, len(self.rows) * len(self.reached))))
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
        step = Step.of_ranks(
            key % _LAP,
            np.arange(len(self.reached), dtype=np.int32),
            self.rows,
            matrix,
            present,
            time=pending.time_ns / 1e9,
            attempt=self.attempt,
        )
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

    def _most_ranks(self) -> int:
        """So many that one step of all metrics stays within `max_cells`."""
        return min(MAX_RANKS, self.max_cells // max(1, len(self.rows)))

    def _grow(self, size: int) -> None:
        more = size - len(self.reached)
        self.reached = np.r_[self.reached, np.full(more, -1, np.int64)]
        self.waited = np.r_[self.waited, np.ones(more, np.bool_)]
        self.heard = np.r_[self.heard, np.zeros(more)]
