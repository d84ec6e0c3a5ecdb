"""Records -> steps: one run of a log brought into the shape in which the engine sees a live run.

Here a log's silence is interpreted, and nothing else: a step that goes back is a new attempt; step time comes from the clock where it is
not logged; records without a step axis are counted; a record that carries an evaluation declares one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

import numpy as np

from holter_monitor.imports.records import Record
from holter_monitor.stream.steps import Step

_EVALUATED = ("eval_", "val_", "valid_", "validation_")
_TOKENS_SEEN = 8
"""Records with `tokens` that are looked at to tell a running total from a count per step."""
HELD_RECORDS = 500_000
"""How many records of a log that holds one rank after another are merged in memory (about 200 MB)."""
WINDOW_STEPS = 16
"""How far the ranks of one log may be apart before the late ones are named as missing."""
MAX_STAGES = 20
"""A column with more words than this names something else."""


class SequenceError(ValueError):
    """Records in an order that cannot be followed in bounded memory."""


@dataclass(slots=True)
class Clock:
    """One rank's way through a log: its step, its time, its attempt."""

    step: int | None = None
    time: float | None = None
    timed_step: int | None = None

    def step_time(self, step: int, time: float | None) -> float | None:
        """Seconds per step since the record before that had a time; None where that cannot be told."""
        before, at = self.time, self.timed_step
        if time is None:
            return None
        self.time, self.timed_step = time, step
        if before is None or at is None or step <= at or time <= before:
            return None
        return (time - before) / (step - at)


@dataclass(slots=True)
class Sequence:
    """The steps of one run, record by record. Memory: `WINDOW_STEPS` steps of all ranks; a log that holds one rank after another, whole."""

    attempt: int = 1
    clocks: dict[int, Clock] = field(default_factory=dict)
    elapsed: float = 0.0
    """Seconds, added up from the step times where the log has no clock."""
    stages: set[str] = field(default_factory=set)
    """The stages that the log has named so far."""
    count: int = 0
    has_axis: bool = False
    is_total: bool | None = None
    """Whether `tokens` is a running total; None while it cannot be told."""
    held: list[Record] = field(default_factory=list)
    """Records that wait for something to be decided."""
    open: dict[int, dict[int, tuple[Record, float]]] = field(default_factory=dict)
    """Steps of several ranks that are not complete: step -> rank -> record and its time."""
    has_ranks: bool = False
    first: int | None = None
    """The first step of this attempt, where there are ranks."""

    def steps(self, records: Iterable[Record]) -> Iterator[Step]:
        """All steps of all `records`. For one source; `add` and `finish` serve several runs in one file."""
        for record in records:
            yield from self.add(record)
        yield from self.finish()

    def add(self, record: Record) -> list[Step]:
        if self._must_wait(record):
            self.held.append(record)
            return []
        if self.held:
            waiting, self.held = [*self.held, record], []
            return [step for each in waiting for step in self._take(each)]
        return self._take(record)

    def finish(self) -> list[Step]:
        """The log has ended: nothing waits any longer."""
        if self.is_total is None:
            self.is_total = _is_rising(self.held)
        waiting, self.held = self.held, []
        if len({record.rank for record in waiting}) > 1:
            waiting = _merged(waiting)
        steps = [step for record in waiting for step in self._take(record)]
        return steps + self._close_all()

    # ------------------------------------------------------------- what must be decided first

    def _must_wait(self, record: Record) -> bool:
        if record.rank is not None and not self.has_ranks:
            return self._wait_for_ranks(record)
        if self.is_total is None and "tokens" in record.values:
            if record.step is None:
                self.is_total = True
            elif len(self.held) >= _TOKENS_SEEN:
                self.is_total = _is_rising(self.held)
            return self.is_total is None
        return bool(self.held) and self.is_total is None and "tokens" in self.held[0].values

    def _wait_for_ranks(self, record: Record) -> bool:
        """True while only one rank was seen, and for all of a log that holds one rank after another: those are merged by step at its end."""
        if len(self.held) >= HELD_RECORDS:
            if any(record.rank != each.rank for each in self.held):
                raise SequenceError("its ranks stand one after another, too long to be merged")
            self.has_ranks = True
            return False
        if not self.held or record.rank == self.held[-1].rank:
            return True
        first, last = self.held[0].step or 0, self.held[-1].step or 0
        is_rank_major = (record.step or 0) < last - WINDOW_STEPS or (len(self.held) > 1 and (record.step or 0) <= first < last)
        self.has_ranks = not is_rank_major
        return is_rank_major

    # ------------------------------------------------------------- one record

    def _take(self, record: Record) -> list[Step]:
        if self.is_total and "tokens" in record.values:
            record.values.setdefault("consumed_tokens", record.values.pop("tokens"))
        if record.stage:
            self._stage(record)
        rank = record.rank or 0
        clock = self.clocks.setdefault(rank, Clock())
        step = self._number(record, clock)
        closed: list[Step] = []
        if clock.step is not None and step < clock.step:
            if _is_evaluation(record):
                step = clock.step
            else:
                closed = self._begin_attempt(rank)
                clock = self.clocks.setdefault(rank, Clock())
        self._time(record, step, clock)
        clock.step = step
        if record.rank is None:
            return [*closed, self._alone(record, step)]
        return closed + self._among_ranks(record, step)

    def _stage(self, record: Record) -> None:
        """A stage is declared where its word first appears: logs that alternate between two (train, val) must not excuse every record."""
        if record.stage in self.stages or len(self.stages) > MAX_STAGES:
            return
        if self.stages:
            record.words = (*record.words, "stage")
        self.stages.add(record.stage)

    def _number(self, record: Record, clock: Clock) -> int:
        if record.step is not None:
            self.has_axis = True
            return record.step
        if self.has_axis:
            return clock.step or 0
        self.count += 1
        return self.count - 1

    def _begin_attempt(self, rank: int) -> list[Step]:
        closed = self._close_all()
        self.attempt += 1
        self.first = None
        self.clocks.clear()
        return closed

    def _time(self, record: Record, step: int, clock: Clock) -> None:
        derived = clock.step_time(step, record.time)
        if derived is not None:
            record.values.setdefault("step_time_seconds", derived)
        spent = record.values.get("step_time_seconds")
        if record.time is None and spent is not None and 0 < spent < 1e9 and not record.rank:
            self.elapsed += spent * max(1, step - (clock.step if clock.step is not None else step))

    def _alone(self, record: Record, step: int) -> Step:
        time = self.elapsed if record.time is None else record.time
        return Step.of(step, record.values, time=time, attempt=str(self.attempt), events=_events(record, step, time))

    # ------------------------------------------------------------- many ranks

    def _among_ranks(self, record: Record, step: int) -> list[Step]:
        rank = record.rank or 0
        time = self.elapsed if record.time is None else record.time
        closed = self._close(step) if rank in self.open.get(step, ()) else []
        self.open.setdefault(step, {})[rank] = (record, time)
        newest = max(self.open)
        if self.first is None:
            self.first = step
        # Early in an attempt it is not known yet how many ranks there are: nothing is complete.
        is_settled = newest - self.first >= WINDOW_STEPS
        slowest = min(clock.step for clock in self.clocks.values() if clock.step is not None)
        for number in sorted(self.open):
            if number == newest or not ((number <= slowest and is_settled) or number <= newest - WINDOW_STEPS):
                break
            closed += self._close(number)
        return closed

    def _close_all(self) -> list[Step]:
        return [step for number in sorted(self.open) for step in self._close(number)]

    def _close(self, number: int) -> list[Step]:
        rows = self.open.pop(number)
        ranks = np.array(sorted(self.clocks), np.int32)
        names: dict[str, int] = {}
        for record, _ in rows.values():
            for metric in record.values:
                names.setdefault(metric, len(names))
        matrix = np.full((len(names), len(ranks)), np.nan)
        present = np.zeros((len(names), len(ranks)), np.bool_)
        for place, rank in enumerate(ranks.tolist()):
            if rank in rows:
                for metric, value in rows[rank][0].values.items():
                    matrix[names[metric], place], present[names[metric], place] = value, True
        time = max(time for _, time in rows.values())
        step = Step.of_ranks(number, ranks, names, matrix, present, time=time, attempt=str(self.attempt))
        step.missing = np.array([rank for rank in ranks.tolist() if rank not in rows], np.int32)
        events = [event for record, _ in rows.values() for event in _events(record, number, time)]
        if events:
            step.say(list({event["event"]: event for event in events}.values()))
        return [step]


def _merged(records: list[Record]) -> list[Record]:
    """Ranks that stand one after another, side by side: by attempt (a rank that goes back begins one), then by step."""
    last: dict[int | None, int] = {}
    attempts: dict[int | None, int] = {}
    keyed = []
    for record in records:
        step = record.step or 0
        attempts[record.rank] = attempts.get(record.rank, 0) + (step < last.get(record.rank, step))
        last[record.rank] = step
        keyed.append(((attempts[record.rank], step), record))
    keyed.sort(key=lambda pair: pair[0])
    return [record for _, record in keyed]


def _is_rising(records: list[Record]) -> bool:
    totals = [record.values["tokens"] for record in records if "tokens" in record.values]
    return len(totals) > 1 and all(before < after for before, after in pairwise(totals))


def _is_evaluation(record: Record) -> bool:
    """A record of evaluations alone: it may be logged late, under the step of its checkpoint, and is no rewind."""
    return all(metric.startswith(_EVALUATED) for metric in record.values)


@lru_cache(4096)
def _tells_evaluation(metrics: tuple[str, ...]) -> bool:
    """Asked of every record; the answer depends only on which columns are filled."""
    return any(metric.startswith(_EVALUATED) for metric in metrics)


def _events(record: Record, step: int, time: float) -> list[dict[str, object]]:
    words = record.words
    if _tells_evaluation(tuple(record.values)) and "eval" not in words:
        words = (*words, "eval")
    if not words:
        return []
    return [{"event": word, "rank": record.rank, "step": step, "time_ns": int(time * 1e9), "attrs": {}} for word in words]
