"""From rows of several rings to the columns of one frame, with the metrics that follow from a row and the one before it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from holter.frame import Column
from holter.node.reader import RingReader, Rows
from holter.ring import NO_WAIT

Floats = NDArray[np.float64]


@dataclass(slots=True)
class Pace:
    """Where one rank stands: carried from row to row, so that a step's time does not depend on how rows are cut into frames."""

    flops_ratio: float | None = None
    """FLOPs of one token over the FLOPs a second of the hardware that this rank uses; `mfu` is tokens a second times this."""
    step: int | None = None
    began_ns: int = 0
    step_seconds: float = float("nan")

    def step_times(self, rows: Rows) -> tuple[Floats, Floats]:
        """`(time of the row's step, the same but only at the step's first row)`; NaN where unknown: before a rank's second step."""
        whole = np.full(len(rows), np.nan)
        first = np.full(len(rows), np.nan)
        for index, (step, at) in enumerate(zip(rows.step.tolist(), rows.time_ns.tolist(), strict=True)):
            if step != self.step:
                if self.step is not None:
                    self.step_seconds = first[index] = (at - self.began_ns) / 1e9
                self.step, self.began_ns = step, at
            whole[index] = self.step_seconds
        return whole, first


@dataclass(slots=True)
class Columns:
    """Rows gathered for one frame."""

    ranks: list[NDArray[np.int32]] = field(default_factory=list)
    steps: list[NDArray[np.int64]] = field(default_factory=list)
    times: list[NDArray[np.int64]] = field(default_factory=list)
    pieces: dict[str, list[tuple[int, NDArray[np.intp], Floats]]] = field(default_factory=dict)
    """For each metric: `(first row of the ring, rows in the ring, values)`."""
    rows: int = 0
    is_urgent: bool = False
    """Holds a value that is not finite: worth sending at once."""

    def add(self, ring: RingReader, rows: Rows, pace: Pace) -> None:
        """Append a ring's rows."""
        count = len(rows)
        if not count:
            return
        # Names first: a torn table of names raises, and must leave no half of the rows behind.
        schemas = {number: ring.schema(number) for number in np.unique(rows.schema).tolist()}
        self.ranks.append(np.full(count, ring.rank, np.int32))
        self.steps.append(rows.step.copy())
        self.times.append(rows.time_ns + (time.time_ns() - time.monotonic_ns()))
        tokens = np.full(count, np.nan)
        for number, names in schemas.items():
            where = np.flatnonzero(rows.schema == number)
            values = rows.values(where, len(names))
            self.is_urgent = self.is_urgent or not bool(np.isfinite(values).all())
            for index, name in enumerate(names):
                self._put(name, where, values[:, index])
            if "tokens" in names:
                tokens[where] = values[:, names.index("tokens")]
        self._derive(rows, tokens, pace)
        self.rows += count

    def add_sample(self, rank: int, step: int, values: dict[str, float]) -> None:
        """Append one row of a sampler."""
        self.ranks.append(np.array([rank], np.int32))
        self.steps.append(np.array([step], np.int64))
        self.times.append(np.array([time.time_ns()], np.int64))
        here = np.zeros(1, np.intp)
        for name, value in values.items():
            self._put(name, here, np.array([float(value)]))
        self.rows += 1

    def _derive(self, rows: Rows, tokens: Floats, pace: Pace) -> None:
        step_seconds, at_first = pace.step_times(rows)
        self._put_known("step_time_seconds", at_first)
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = tokens / step_seconds
        self._put_known("tokens_per_second", np.where(np.isfinite(rate), rate, np.nan))
        if pace.flops_ratio is not None:
            self._put_known("mfu", np.where(np.isfinite(rate), rate * pace.flops_ratio, np.nan))
        self._put_known("data_wait_seconds", np.where(rows.wait_ns == NO_WAIT, np.nan, rows.wait_ns / 1e9))

    def _put_known(self, name: str, values: Floats) -> None:
        where = np.flatnonzero(~np.isnan(values))
        if len(where):
            self._put(name, where, values[where])

    def _put(self, name: str, where: NDArray[np.intp], values: Floats) -> None:
        self.pieces.setdefault(name, []).append((self.rows, where, values))

    def metrics(self) -> dict[str, Column]:
        """The frame's metric columns: a value and whether it was logged. What the user logged wins over what was derived."""
        columns: dict[str, Column] = {}
        for name, pieces in self.pieces.items():
            values = np.zeros(self.rows)
            present = np.zeros(self.rows, np.bool_)
            for start, where, found in reversed(pieces):
                values[start + where] = found
                present[start + where] = True
            columns[name] = Column(values, present)
        return columns
