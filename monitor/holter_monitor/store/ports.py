"""The ports behind which the engines stand: the frame log and the sample store. Callers know nothing else of either.

(The control store is SQLAlchemy on SQLite or PostgreSQL, its tables in `tables.py`; SQLAlchemy is the port there.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from holter.frame import Frame


@dataclass(frozen=True, slots=True)
class Entry:
    """One frame in the log."""

    offset: int
    """Grows with every append, never reused; consumers remember the last one they have finished with."""
    received: float
    """Unix seconds, the collector's clock, when it was appended."""
    body: bytes
    """The frame's bytes, not compressed."""


class FrameLog(Protocol):
    """The truth of the collector: append, read from an offset, trim."""

    def append(self, bodies: Sequence[tuple[Frame, bytes]], received: float) -> list[bool]:
        """Make the frames durable (all of them, in one commit) before it returns. One answer a frame: True = new, False = a repeat of
        `(node, boot, seq)`, which is not stored again. Raises `LogUnavailable` (retry later) or `LogConflict` (same key, other bytes)."""
        ...

    def read(self, after: int, limit: int = 256) -> list[Entry]:
        """The entries that follow offset `after`, oldest first, at most `limit`."""
        ...

    def trim(self, through: int) -> None:
        """Forget entries up to and with offset `through`, that all consumers have finished with. Their keys stay known."""
        ...

    def last_offset(self) -> int:
        """The offset of the newest entry; 0 for an empty log."""
        ...

    def close(self) -> None: ...
