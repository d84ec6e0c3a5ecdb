"""Frames on disk until the collector has them: CRC'd records in segments, capped, in order, resumed by the next agent of the node.

A kill loses nothing that was written; a power loss at most the second since the last `sync`.
A torn or damaged record is skipped: the reader goes on at the next whole one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from holter.node.records import Class, Record, pack
from holter.node.segments import Segments
from holter.node.thinning import REASON, losses, thinned

_SEGMENT_BYTES = 4 * 1024 * 1024
RETRY_SECONDS = 2.0
"""How long a disk that took nothing is left alone."""


@dataclass(kw_only=True)
class Spool:
    """One run's frames. Thread-safe: the agent's loop appends, the shipper's thread takes and acknowledges.

    Where the disk cannot take a record it is kept in memory, up to `memory_bytes`, so a full disk costs durability before it costs data: in the
    overflow, where the next agent of the node finds it, or in this process where that takes nothing either.
    """

    folder: Path
    overflow: Path | None = None
    """A folder in shared memory."""
    max_bytes: int = 256 * 1024 * 1024
    memory_bytes: int = 8 * 1024 * 1024
    segment_bytes: int = _SEGMENT_BYTES
    dropped: dict[str, int] = field(default_factory=dict)
    """Rows and events lost here since the counts were last taken, by reason, where no declaration could take their place."""

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._file: int | None = None
        self._file_bytes = 0
        self._is_dirty = False
        self._memory: deque[Record] = deque()
        self._memory_bytes = 0
        self._reading: deque[Record] = deque()
        self._classes: dict[int, set[Class]] = {}
        self._avoids_disk_until = 0.0
        self._files = Segments(self.folder, self.overflow)
        self._acked = self._files.acked()
        self._segments: deque[tuple[int, int]] = deque(self._files.found())
        self._next = self._next_number()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nothing is acknowledged meanwhile."""
        with self._lock:
            yield

    # -- writing -------------------------------------------------------------------------------------------------------------

    def append(self, kind: Class, payload: bytes, *, rows: int = 0, events: int = 0, note: bytes = b"") -> int:
        """Keep one frame; the answer is its number. Never raises for a disk that fails or is full."""
        with self._lock:
            record = Record(self._next, kind, rows, events, payload, note)
            self._next += 1
            if not (self._is_written(record) or self._is_written(record)):
                self._remember(record)
            self._shrink()
            return record.number

    def _is_written(self, *records: Record) -> bool:
        """Whether files took them; after a disk that did not, the overflow is asked."""
        try:
            # Order holds: once something waits in this process, what follows waits behind it until a file takes all of it.
            self._flush_memory()
            for record in records:
                self._write_one(record)
        except OSError:
            self._avoids_disk_until = time.monotonic() + RETRY_SECONDS
            self._give_segment_up()
            return False
        return True

    def _give_segment_up(self) -> None:
        self._close_segment()
        if self._segments and not self._segments[-1][1]:
            self._files.remove(self._segments.pop()[0])

    def _write_one(self, record: Record) -> None:
        if self._file is None or self._file_bytes + record.size > self._largest(self._segments[-1][0]):
            self._open_segment(record)
        assert self._file is not None
        data = pack(record)
        written = os.write(self._file, data)
        if written != len(data):
            # The disk is full in the middle of a record: take the stump back, so that the segment ends whole.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._file_bytes)
            raise OSError(errno.ENOSPC, "no space left for a whole record")
        self._file_bytes += written
        first, size = self._segments[-1]
        self._segments[-1] = (first, size + written)
        self._classes.setdefault(first, set()).add(record.kind)
        self._is_dirty = True

    def _largest(self, first: int) -> int:
        return min(self.segment_bytes, self.memory_bytes // 8) if self._files.is_over(first) else self.segment_bytes

    def _open_segment(self, record: Record) -> None:
        self._close_segment()
        is_over = self.overflow is not None and time.monotonic() < self._avoids_disk_until
        last, size = self._segments[-1] if self._segments else (-1, 0)
        if is_over and self._files.is_over(last) and size + record.size <= self._largest(last):
            # The disk was asked in between and took nothing: a segment for each time would be a thousand in an hour.
            self._file = self._files.reopen(last)
            self._file_bytes = os.fstat(self._file).st_size
        else:
            self._file = self._files.create(record.number, over=is_over)
            self._file_bytes = 0
            self._segments.append((record.number, 0))

    def _close_segment(self) -> None:
        if self._file is not None:
            self._sync_file()
            os.close(self._file)
            self._file = None

    def _remember(self, record: Record) -> None:
        self._memory.append(record)
        self._memory_bytes += record.size
        while self._memory_bytes > self.memory_bytes:
            # The oldest may be on its way to the collector: it is not to be counted as lost and arrive as well.
            victims = list(self._memory)[1:] or list(self._memory)
            worst = max(kept.kind for kept in victims)
            victim = next(kept for kept in victims if kept.kind == worst)
            self._memory.remove(victim)
            self._memory_bytes -= victim.size
            self._count(losses([victim], "spool_unwritable"))

    def _flush_memory(self) -> None:
        while self._memory:
            self._write_one(self._memory[0])
            self._memory_bytes -= self._memory.popleft().size

    def sync(self) -> bool:
        """Make what was appended survive a power loss, and say whether it would. Called about once a second."""
        with self._lock:
            self._is_written()
            if self._file is not None and self._files.is_over(self._segments[-1][0]) and time.monotonic() >= self._avoids_disk_until:
                self._close_segment()  # the next record asks the disk again
            self._sync_file()
            return not (self._is_dirty or self._memory or any(self._files.is_over(first) for first, _ in self._segments))

    def _sync_file(self) -> None:
        if self._is_dirty and self._file is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._file)
                self._is_dirty = False

    # -- reading -------------------------------------------------------------------------------------------------------------

    def peek(self) -> Record | None:
        """The oldest frame that is not acknowledged, or None. It may be in flight: on disk it is the last to be given up."""
        with self._lock:
            self._fill()
            return self._reading[0] if self._reading else (self._memory[0] if self._memory else None)

    def _fill(self) -> None:
        while not self._reading and self._segments:
            first, _ = self._segments[0]
            records = [record for record in self._files.read(first) if record.number > self._acked]
            if records:
                self._reading.extend(records)
                return
            if len(self._segments) == 1 and self._file is not None:
                if self._file_bytes:
                    self._remove_first_segment()
                return
            self._remove_first_segment()

    def ack(self, number: int) -> None:
        """The collector has it."""
        with self._lock:
            self._acked = max(self._acked, number)
            while self._reading and self._reading[0].number <= number:
                self._reading.popleft()
            while self._memory and self._memory[0].number <= number:
                self._memory_bytes -= self._memory.popleft().size
            self._files.set_acked(self._acked)

    @property
    def is_empty(self) -> bool:
        return self.peek() is None

    @property
    def num_waiting(self) -> int:
        """Frames appended and not acknowledged; those that were given up meanwhile count as well."""
        with self._lock:
            return self._next - 1 - self._acked

    @property
    def size(self) -> int:
        """Bytes on disk and in memory."""
        with self._lock:
            return self._bytes(over=False) + self._bytes(over=True) + self._memory_bytes

    def last_notes(self) -> list[bytes]:
        """The newest notes: what an agent that died may have spooled without telling the rings. At most three frames, in a segment each."""
        with self._lock:
            return [record.note for first, _ in list(self._segments)[-3:] for record in self._files.read(first)]

    def take_dropped(self) -> dict[str, int]:
        with self._lock:
            taken, self.dropped = self.dropped, {}
            return taken

    # -- keeping within bounds -------------------------------------------------------------------------------------------------

    def _shrink(self) -> None:
        """Above a cap: give up the least important and oldest until a tenth is free, so that not every frame has to make room."""
        for over, cap in ((False, self.max_bytes), (True, self.memory_bytes)):
            if self._bytes(over=over) > cap:
                self._fill()
                self._shrink_to(cap - cap // 10, over=over)

    def _shrink_to(self, target: int, *, over: bool) -> None:
        for worst in (Class.SAMPLES, Class.POINTS, Class.EVENTS):
            for index in range(len(self._segments) - 1):
                if self._bytes(over=over) <= target:
                    return
                if self._files.is_over(self._segments[index][0]) is over:
                    self._thin(index, worst)

    def _bytes(self, *, over: bool) -> int:
        return sum(size for first, size in self._segments if self._files.is_over(first) is over)

    def _thin(self, index: int, worst: Class) -> None:
        """Rewrite one closed segment without its records of class `worst`; the declaration of what is lost comes with the same rename."""
        first, _ = self._segments[index]
        if worst not in self._classes.get(first, set(Class)):
            return
        records = [record for record in self._files.read(first) if record.number > self._acked]
        kept, undeclared = thinned(records, worst, self._reading[0].number if self._reading else -1)
        try:
            self._files.replace(first, kept)
        except OSError:
            # No room even for less: the whole segment makes it.
            kept, undeclared = [], losses(records, REASON)
            self._files.remove(first)
        self._count(undeclared)
        if index == 0:
            self._reading = deque(kept)
        self._segments[index] = (first, sum(record.size for record in kept))
        self._classes[first] = {record.kind for record in kept} - {worst}

    def _count(self, lost: dict[str, int]) -> None:
        for reason, count in lost.items():
            if count:
                self.dropped[reason] = self.dropped.get(reason, 0) + count

    # -- files -----------------------------------------------------------------------------------------------------------------

    def _remove_first_segment(self) -> None:
        first, _ = self._segments.popleft()
        self._classes.pop(first, None)
        if not self._segments:
            self._close_segment()
        self._files.remove(first)

    def _next_number(self) -> int:
        newest = self._acked
        if self._segments:
            first = self._segments[-1][0]
            newest = max([newest, first, *(record.number for record in self._files.read(first))])
        return newest + 1

    def close(self) -> None:
        with self._lock:
            self.sync()
            self._close_segment()

    def remove(self) -> None:
        """Forget a run whose frames have all been acknowledged."""
        with self._lock:
            self._close_segment()
            self._files.clear()
