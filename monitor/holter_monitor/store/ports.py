"""The ports behind which the engines stand: the frame log and the sample store. Callers know nothing else of either.

(The control store is SQLAlchemy on SQLite or PostgreSQL, its tables in `tables.py`; SQLAlchemy is the port there.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from holter.frame import Frame, decode
from numpy.typing import NDArray


class Outcome(Enum):
    """What became of a frame that was offered to the log."""

    STORED = "stored"
    REPEATED = "repeated"
    """`(node, boot, seq)` was there already: acknowledge, do not store again."""
    CONFLICT = "conflict"
    """`(node, boot, seq)` was there with other bytes: two agents believe that they are the same one."""


@dataclass(slots=True)
class Entry:
    """One frame in the log."""

    offset: int
    """Grows with every append, never reused; consumers remember the last one they have finished with."""
    received: float
    """Unix seconds, the collector's clock, when it was appended."""
    body: bytes
    """The frame's bytes, not compressed."""
    _frame: Frame | None = field(default=None, repr=False, compare=False)

    @property
    def frame(self) -> Frame:
        """The frame, decoded at most once however many consumers ask."""
        if self._frame is None:
            self._frame = decode(self.body)
        return self._frame


class FrameLog(Protocol):
    """The truth of the collector: append, read from an offset, trim."""

    def append(self, bodies: Sequence[tuple[Frame, bytes]], received: float) -> list[Outcome]:
        """Make the frames durable (all of them, in one commit) before it returns; one outcome a frame. Raises `Unavailable` or `DiskFull`,
        and then none of them is promised."""
        ...

    def read(self, after: int, limit: int = 256) -> list[Entry]:
        """The entries that follow offset `after`, oldest first, at most `limit`."""
        ...

    def wait(self, after: int, timeout: float) -> bool:
        """Until there is an entry behind `after`, or `timeout` seconds have passed; True if there is one."""
        ...

    def trim(self, through: int) -> int:
        """Forget entries up to and with offset `through`, that all consumers have finished with; their keys stay known for ever.
        A bounded piece of work: the answer is how many were forgotten, 0 when none is left."""
        ...

    def problem(self) -> str | None:
        """What keeps it from taking frames, or soon will; None if nothing does."""
        ...

    def last_offset(self) -> int:
        """The offset of the newest entry; 0 for an empty log."""
        ...

    def go_on_after(self, offset: int) -> None:
        """Give no entry an offset that a consumer has passed already: a log that was lost, and begins anew, would not be read."""
        ...

    def copy_to(self, folder: Path) -> None:
        """A copy as of now, while frames go on being appended."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Rows:
    """Points of one metric, columns of equal length, ordered by attempt, step, rank. `present` is False where a value was not logged."""

    attempt: NDArray[Any]
    """int32: the attempt's number in the sample store (`SampleStore.attempts`)."""
    node: NDArray[Any]
    rank: NDArray[Any]
    step: NDArray[Any]
    time_ns: NDArray[Any]
    value: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Cells:
    """What `Rows` says of many ranks, without the times: a value a rank and step, or of several the one that counts last. In no other order."""

    node: NDArray[Any]
    rank: NDArray[Any]
    step: NDArray[Any]
    value: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Aggregates:
    """One metric over groups of ranks, by attempt, step and group (the group is 0 where all ranks are one)."""

    attempt: NDArray[Any]
    step: NDArray[Any]
    group: NDArray[Any]
    time_ns: NDArray[Any]
    value: NDArray[Any]
    count: NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Which steps of which attempt; None is unbounded."""

    from_step: int | None = None
    to_step: int | None = None
    attempt: str | None = None


class SampleStore(Protocol):
    """Per-rank points: written by one consumer together with its offset, read by many."""

    def write(self, entries: Sequence[Entry]) -> int:
        """Store the rows of the entries and the last one's offset, in one transaction. How many values were left out because their run has too
        many metrics. Raises `Unavailable` or `DiskFull`."""
        ...

    def offset(self) -> int:
        """The offset up to which everything is stored."""
        ...

    def metrics(self, run: str) -> list[str]: ...

    def attempts(self, run: str) -> dict[int, str]:
        """The run's attempts by the number that `Rows.attempt` carries."""
        ...

    def nodes(self, run: str) -> dict[int, str]: ...

    def ranks(self, run: str, metric: str, window: Window, ranks: Sequence[int] | None = None) -> Rows:
        """The values that were logged, each rank's own (a metric's newest value of a rank and step counts)."""
        ...

    def cells(self, run: str, metric: str, window: Window) -> Cells:
        """The values of all ranks (not of the nodes' own rows) that a picture of many steps is made of."""
        ...

    def aggregate(self, run: str, metric: str, window: Window, *, how: str, groups: dict[int, int] | None = None) -> Aggregates:
        """`how` (mean, min, max, median, sum, count) over the ranks of each step, or over each group (`groups`: rank → group)."""
        ...

    def lone_rank(self, run: str) -> bool:
        """Whether all rows of the run are of one rank."""
        ...

    def problem(self) -> str | None:
        """What keeps it from being written; None if nothing is known to."""
        ...

    def last_step(self, run: str, metric: str) -> int | None: ...

    def copy_to(self, folder: Path) -> None:
        """A copy as of now: what is written to the store waits, the log takes it meanwhile."""
        ...

    def close(self) -> None: ...
