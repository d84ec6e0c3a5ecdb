"""The node agent's side of a ring: takes whole rows and events, in order, and remembers in the ring how far it came."""

from __future__ import annotations

import json
import mmap
import os
import platform
import struct
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holter.errors import HolterError
from holter.ring import (
    ADVICE_BYTES,
    ADVICE_OFFSET,
    DROP_REASONS,
    EVENTS_BYTES,
    EVENTS_OFFSET,
    MAGIC,
    META_OFFSET,
    RING_BYTES,
    ROW_TAIL,
    ROWS,
    ROWS_OFFSET,
    SCHEMAS_OFFSET,
    STRIDE,
    Word,
)

_EVENT = struct.Struct("<II")
_STORES_IN_ORDER = platform.machine() in ("x86_64", "AMD64", "i686")
EVENT_TORN = "event_torn"
_MARGIN = 64
"""Slots given up behind a lap, so that the writer is not met again at once."""


class RingError(HolterError):
    """A file is no ring, or one of another version."""


@dataclass(slots=True)
class Rows:
    """Rows of one rank in the order they were written. `words` is (n, 64) int64: a slot each; values are right-aligned float64."""

    words: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.words)

    @property
    def time_ns(self) -> NDArray[np.int64]:
        return self.words[:, -5]

    @property
    def step(self) -> NDArray[np.int64]:
        return self.words[:, -4]

    @property
    def wait_ns(self) -> NDArray[np.int64]:
        return self.words[:, -3]

    @property
    def schema(self) -> NDArray[np.int64]:
        return self.words[:, -2]

    def values(self, rows: NDArray[np.intp], count: int) -> NDArray[np.float64]:
        """The `count` values of each of `rows`, as float64 (rows, count)."""
        end = STRIDE // 8 - ROW_TAIL
        return self.words[rows, end - count : end].view(np.float64)


class RingReader:
    """One ring, opened. Raises `RingError` or `OSError` on opening; reading raises nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if os.fstat(descriptor).st_size < RING_BYTES:
                raise RingError(f"{path} is too short for a ring")
            self._mapping = mmap.mmap(descriptor, RING_BYTES)
        finally:
            os.close(descriptor)
        self._buffer = memoryview(self._mapping)
        self.words = self._buffer[:ADVICE_OFFSET].cast("q")
        if self.words[Word.MAGIC] != MAGIC:
            raise RingError(f"{path} is no ring of this version")
        self.meta = self._read_meta()
        self.rank = int(self.meta.get("rank", 0))
        self.names: list[tuple[str, ...]] = []
        self._schemas_read = 0
        self._slots = np.frombuffer(self._mapping, np.int64, ROWS * STRIDE // 8, ROWS_OFFSET).reshape(ROWS, STRIDE // 8)
        self._hole_at = -1
        self._rows_at, self._events_at = self.words[Word.ROWS_TAIL], self.words[Word.EVENTS_TAIL]
        self.overrun = 0
        self._torn = 0
        self._told = [self.words[Word.TOLD + index] for index in range(len(DROP_REASONS))]

    def _read_meta(self) -> dict[str, Any]:
        size = self.words[Word.META_BYTES]
        try:
            meta = json.loads(bytes(self._buffer[META_OFFSET : META_OFFSET + size]))
        except ValueError as error:
            raise RingError(f"{self.path}: its meta is not JSON") from error
        if not isinstance(meta, dict):
            raise RingError(f"{self.path}: its meta is no object")
        return meta

    @property
    def process(self) -> tuple[int, int]:
        return self.words[Word.PID], self.words[Word.PID_STARTED]

    def beat(self) -> None:
        """Tell the rank that somebody looks."""
        self.words[Word.BEAT] = time.monotonic_ns()

    @property
    def position(self) -> tuple[int, int]:
        """Rows and bytes of events taken so far."""
        return self._rows_at, self._events_at

    def mark(self, *, with_events: bool) -> list[int]:
        """How far this ring has been read, for the note of a frame: without the events where they travel in a later frame."""
        return [self._rows_at, self._events_at if with_events else self.words[Word.EVENTS_TAIL], *self._told]

    def go_to(self, rows: int, events: int, *told: int) -> None:
        """Skip what is known to be taken, and losses that were declared; never goes back."""
        self._rows_at, self._events_at = max(rows, self._rows_at), max(events, self._events_at)
        for index, total in enumerate(told[: len(DROP_REASONS)]):
            self._told[index] = max(total, self._told[index])

    def settle(self) -> None:
        """What was taken is safe in the spool: the next agent need not take it again, and the rank may use the room."""
        self.words[Word.ROWS_TAIL], self.words[Word.EVENTS_TAIL] = self._rows_at, self._events_at
        for index, total in enumerate(self._told):
            self.words[Word.TOLD + index] = total

    @property
    def is_read(self) -> bool:
        """Whether nothing is left to take."""
        newest = int(self._slots[:, -1].max())
        return newest <= self._rows_at and self.words[Word.EVENTS_HEAD] <= self._events_at

    def take_rows(self, limit: int = ROWS) -> Rows:
        """The next whole rows, at most `limit`."""
        tail = self._rows_at = self._skip_lost(self._rows_at)
        numbers = tail + np.arange(min(limit, ROWS), dtype=np.int64)
        slots = numbers % ROWS
        whole = self._slots[slots, -1] == numbers + 1
        count = len(whole) if whole.all() else int(np.argmin(whole))
        if count == 0 and whole.any():
            self._pass_hole(tail, whole)
        elif count:
            self._hole_at = -1
        if not _STORES_IN_ORDER and count:
            time.sleep(0.001)  # other processors may show the ticket before the values; a millisecond is longer than any store waits
        words = self._slots[slots[:count]]
        kept = self._slots[slots[:count], -1] == numbers[:count] + 1
        if not kept.all():
            # Overtaken while copying: the oldest rows are gone.
            self.overrun += int((~kept).sum())
            words = words[kept]
        self._rows_at = max(self._rows_at, tail + count)
        return Rows(words)

    def _skip_lost(self, tail: int) -> int:
        if self._slots[tail % ROWS, -1] <= tail + 1:
            return tail
        newest = int(self._slots[:, -1].max())
        first = max(tail, newest - ROWS + _MARGIN)
        self.overrun += first - tail
        return first

    def _pass_hole(self, tail: int, whole: NDArray[np.bool_]) -> None:
        """A ticket was drawn and its row not written. Another thread may be about to: wait one look, then go on behind it."""
        if self._hole_at == tail:
            self._rows_at = tail + int(np.argmax(whole))
        self._hole_at = tail

    def schema(self, number: int) -> tuple[str, ...]:
        """The metric names of a schema."""
        if number >= len(self.names):
            self._read_schemas()
        return self.names[number] if 0 <= number < len(self.names) else ()

    def _read_schemas(self) -> None:
        end = self.words[Word.SCHEMAS_BYTES]
        text = bytes(self._buffer[SCHEMAS_OFFSET + self._schemas_read : SCHEMAS_OFFSET + end])
        self._schemas_read = end
        self.names.extend(tuple(json.loads(line)) for line in text.splitlines())

    def take_events(self) -> list[dict[str, Any]]:
        """The next whole events."""
        head = self.words[Word.EVENTS_HEAD]
        events: list[dict[str, Any]] = []
        while self._events_at + _EVENT.size <= head:
            at = self._events_at
            length, crc = _EVENT.unpack(self._bytes(at, _EVENT.size))
            end = at + _EVENT.size + length
            payload = self._bytes(at + _EVENT.size, length) if end <= head else b""
            if end > head or zlib.crc32(payload) != crc:
                # A torn record: its length cannot be trusted, so neither can what follows.
                self._torn += 1
                self._events_at = head
                break
            events.append(json.loads(payload))
            self._events_at = end
        return events

    def _bytes(self, position: int, size: int) -> bytes:
        at = position % EVENTS_BYTES
        first = min(size, EVENTS_BYTES - at)
        start = EVENTS_OFFSET + at
        return bytes(self._buffer[start : start + first]) + bytes(self._buffer[EVENTS_OFFSET : EVENTS_OFFSET + size - first])

    def take_drops(self) -> dict[str, int]:
        """What was lost since the last call, by reason."""
        found: dict[str, int] = {}
        for index, reason in enumerate(DROP_REASONS):
            total = self.words[Word.DROPPED + index]
            if total != self._told[index]:
                found[reason] = total - self._told[index]
                self._told[index] = total
        if self.overrun:
            found["ring_full"], self.overrun = self.overrun, 0
        if self._torn:
            found[EVENT_TORN], self._torn = self._torn, 0
        return found

    def write_advice(self, advice: dict[str, Any]) -> None:
        """Show the rank what the operator asks; an advice too long for its place is not shown."""
        text = json.dumps(advice).encode()
        if len(text) > ADVICE_BYTES:
            return
        version = self.words[Word.ADVICE_VERSION] // 2 * 2
        self.words[Word.ADVICE_VERSION] = version + 1
        self._buffer[ADVICE_OFFSET : ADVICE_OFFSET + len(text)] = text
        self.words[Word.ADVICE_BYTES] = len(text)
        self.words[Word.ADVICE_VERSION] = version + 2

    def close(self) -> None:
        self._slots = np.empty((0, STRIDE // 8), np.int64)
        self.words.release()
        self._buffer.release()
        self._mapping.close()
