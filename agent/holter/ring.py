"""The black box: one memory-mapped file a rank, written by the rank, read by the node agent, outliving either.

Layout (little endian; `WORD` names the int64 words of the header):

    0        header words
    2 KiB    advice, written by the node agent
    4 KiB    meta: one JSON object that says whose ring this is
    ...      schemas: one JSON line a distinct tuple of metric names; a row names its schema by number
    ...      events: a byte ring of (length, CRC-32, JSON)
    ...      rows: `ROWS` slots; a row is right-aligned in its slot: values..., time, step, wait, schema, ticket

The ticket (1 + the row's number) is the last word of a slot and the last that is written, so a slot whose ticket is the expected one is
whole. Nobody waits for anybody: a reader that is too slow finds a later ticket and counts what it missed; a rank never looks at the reader.
The file is allocated in full before it is mapped: a store into a page that a full file system cannot back would kill the rank with SIGBUS.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
import zlib
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

MAGIC: Final = int.from_bytes(b"HLTRING1", "little")
ADVICE_OFFSET: Final = 2048
ADVICE_BYTES: Final = 2048
META_OFFSET: Final = 4096
META_BYTES: Final = 124 * 1024
SCHEMAS_OFFSET: Final = META_OFFSET + META_BYTES
SCHEMAS_BYTES: Final = 256 * 1024
EVENTS_OFFSET: Final = SCHEMAS_OFFSET + SCHEMAS_BYTES
EVENTS_BYTES: Final = 1024 * 1024
EVENTS_RESERVE: Final = 64 * 1024
"""Kept free for lifecycle events, however much a user's events pile up."""
ROWS_OFFSET: Final = EVENTS_OFFSET + EVENTS_BYTES
ROWS: Final = 4096
ROW_TAIL: Final = 5
STRIDE: Final = 512
"""A slot is eight cache lines and never straddles a ninth."""
ROW_VALUES: Final = STRIDE // 8 - ROW_TAIL
"""Metrics a row holds; a step with more takes several rows."""
RING_BYTES: Final = ROWS_OFFSET + ROWS * STRIDE
MAX_SCHEMAS: Final = 4096
NO_WAIT: Final = -1
SUFFIX: Final = ".ring"
_EVENT: Final = struct.Struct("<II")


class Word(IntEnum):
    """The header's int64 words. `r`: written by the rank, `a`: by the node agent."""

    MAGIC = 0
    PID = 1  # r
    PID_STARTED = 2  # r: with the pid, the process's identity
    META_BYTES = 3  # r
    SCHEMAS_BYTES = 4  # r: bytes of schema lines that are whole
    EVENTS_HEAD = 5  # r: bytes written since the ring began
    EVENTS_TAIL = 6  # a: bytes taken
    ROWS_TAIL = 7  # a: rows taken
    BEAT = 8  # a: monotonic ns of the node agent's last look; 0 = not found yet
    STATE = 9  # r
    PHASE = 10  # r
    PHASE_SINCE = 11  # r: monotonic ns
    ADVICE_VERSION = 12  # a: even = whole
    ADVICE_BYTES = 13  # a
    CLOCK = 15  # r: monotonic ns when the ring was made
    DROPPED = 16  # r: one word a reason, in the order of DROP_REASONS
    REACHED = 40  # r: the newest step whose device values are still on their way
    REACHED_AT = 41  # r: monotonic ns
    GARBAGE = 42  # r: nanoseconds that the garbage collector has taken so far, told about once a second
    TOLD = 48  # a: what of DROPPED has been declared, in the same order


DROP_REASONS: Final = ("too_many_names", "value_not_a_number", "events_full", "event_too_large", "device_busy", "internal_error")


class State(IntEnum):
    """How far the rank has come; the node agent reads it when the process is gone."""

    RUNNING = 0
    FINISHED = 1
    FAILED = 2
    EXITED = 3


class Phase(IntEnum):
    """What the rank is about; a pause is judged by it."""

    START = 0
    STEP = 1
    DATA = 2
    CHECKPOINT = 3
    EVALUATION = 4


class Ring:
    """The rank's side. Not thread-safe by locks: tickets come from one atomic counter, so threads get different slots."""

    def __init__(self, path: Path, mapping: mmap.mmap) -> None:
        self.path = path
        self.mapping = mapping
        self.buffer = memoryview(mapping)
        self.words = self.buffer[:ADVICE_OFFSET].cast("q")
        self.schemas: dict[tuple[str, ...], int] = {}

    @classmethod
    def create(cls, folder: Path, name: str, meta: dict[str, Any], process: tuple[int, int], clock: int) -> Ring:
        """Make the file under a temporary name, fill it, then rename: the node agent sees it whole or not at all. Raises `OSError`."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / f"{name}{SUFFIX}"
        draft = folder / f".{name}.draft"
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, RING_BYTES)
            # Populated now: a first touch of each page would cost a page fault in the middle of training, once in eight steps.
            mapping = mmap.mmap(descriptor, RING_BYTES, mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0))
            ring = cls(path, mapping)
            ring._begin(meta, process, clock)
            os.rename(draft, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise
        finally:
            os.close(descriptor)
        return ring

    def _begin(self, meta: dict[str, Any], process: tuple[int, int], clock: int) -> None:
        text = json.dumps(meta, default=str).encode()
        if len(text) > META_BYTES:
            text = json.dumps({**meta, "config": {"holter": "the config was too large to carry"}}, default=str).encode()[:META_BYTES]
        self.buffer[META_OFFSET : META_OFFSET + len(text)] = text
        words = self.words
        words[Word.META_BYTES] = len(text)
        words[Word.PID], words[Word.PID_STARTED] = process
        words[Word.CLOCK] = words[Word.PHASE_SINCE] = clock
        words[Word.MAGIC] = MAGIC

    def drop(self, reason: str, count: int = 1) -> None:
        """Count points or events that are lost, under one of `DROP_REASONS`."""
        self.words[Word.DROPPED + DROP_REASONS.index(reason)] += count

    def schema(self, names: tuple[str, ...]) -> int | None:
        """The number of this tuple of metric names; None when the table is full (a run that invents names at every step)."""
        number = self.schemas.get(names)
        if number is not None:
            return number
        line = json.dumps(names).encode() + b"\n"
        used = self.words[Word.SCHEMAS_BYTES]
        if len(self.schemas) >= MAX_SCHEMAS or used + len(line) > SCHEMAS_BYTES:
            return None
        start = SCHEMAS_OFFSET + used
        self.buffer[start : start + len(line)] = line
        self.words[Word.SCHEMAS_BYTES] = used + len(line)
        number = self.schemas[names] = len(self.schemas)
        return number

    def event(self, event: dict[str, Any], *, lifecycle: bool) -> bool:
        """Append one event; False (and counted) when it does not fit. The newest is dropped: what was said first explains what follows."""
        payload = json.dumps(event, default=_text, separators=(",", ":")).encode()
        size = _EVENT.size + len(payload)
        if size > EVENTS_BYTES // 2:
            self.drop("event_too_large")
            return False
        head = self.words[Word.EVENTS_HEAD]
        free = EVENTS_BYTES - (head - self.words[Word.EVENTS_TAIL])
        if size > free - (0 if lifecycle else EVENTS_RESERVE):
            self.drop("events_full")
            return False
        self._put(head, _EVENT.pack(len(payload), zlib.crc32(payload)) + payload)
        self.words[Word.EVENTS_HEAD] = head + size
        return True

    def _put(self, head: int, record: bytes) -> None:
        at = head % EVENTS_BYTES
        first = min(len(record), EVENTS_BYTES - at)
        start = EVENTS_OFFSET + at
        self.buffer[start : start + first] = record[:first]
        rest = len(record) - first
        self.buffer[EVENTS_OFFSET : EVENTS_OFFSET + rest] = record[first:]

    def advice(self) -> tuple[int, dict[str, Any]]:
        """`(version, advice)` as the node agent last wrote it; an advice that is just being written reads as the empty one."""
        version = self.words[Word.ADVICE_VERSION]
        size = self.words[Word.ADVICE_BYTES]
        if version % 2 or not 0 < size <= ADVICE_BYTES:
            return version, {}
        text = bytes(self.buffer[ADVICE_OFFSET : ADVICE_OFFSET + size])
        if self.words[Word.ADVICE_VERSION] != version:
            return version, {}
        found = json.loads(text)
        return version, found if isinstance(found, dict) else {}


def _text(value: object) -> str:
    """Anything that JSON cannot say, said in words; a `__repr__` that raises must not take the event with it."""
    try:
        return str(value)[:1000]
    except Exception as error:  # noqa: BLE001  the SDK's guard: somebody else's __str__
        return f"<{type(value).__name__}: {type(error).__name__} in __str__>"
