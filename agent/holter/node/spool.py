"""Frames on disk until the collector has them: CRC'd records in segments, capped, in order, resumed by the next agent of the node.

A kill loses nothing that was written; a power loss at most the second since the last `sync`.
A torn or damaged record is skipped: the reader goes on at the next whole one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from holter.node.records import Class, Record, pack, scan

_SEGMENT_BYTES = 4 * 1024 * 1024
_FREE_BYTES = 1024 * 1024 * 1024
"""Left free on the disk, or a twentieth of it where that is less: on a small disk a gigabyte would mean no spool at all."""


@dataclass(kw_only=True)
class Spool:
    """One run's frames. Thread-safe: the agent's loop appends, the shipper's thread takes and acknowledges.

    Where the disk cannot take a record it is kept in memory, up to `memory_bytes`, so a full disk costs durability before it costs data.
    """

    folder: Path
    max_bytes: int = 256 * 1024 * 1024
    memory_bytes: int = 8 * 1024 * 1024
    segment_bytes: int = _SEGMENT_BYTES
    dropped: dict[str, int] = field(default_factory=dict)
    """Rows and events lost here since the counts were last taken, by reason."""

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._file: int | None = None
        self._file_bytes = 0
        self._is_dirty = False
        self._memory: deque[Record] = deque()
        self._memory_bytes = 0
        self._reading: deque[Record] = deque()
        self._classes: dict[int, set[Class]] = {}
        self._in_flight = -1
        self._acked = -1
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._acked = self._read_acked()
        self._segments: deque[tuple[int, int]] = deque(self._found_segments())
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
            try:
                self._write(record)
            except OSError:
                self._close_segment()
                self._remember(record)
            self._shrink()
            return record.number

    def _write(self, record: Record) -> None:
        if self._memory:
            # Order holds: once something waits in memory, what follows waits behind it until the disk takes all of it.
            self._flush_memory()
        self._write_one(record)

    def _write_one(self, record: Record) -> None:
        if self._file is None or self._file_bytes + record.size > self.segment_bytes:
            self._open_segment(record.number)
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

    def _open_segment(self, number: int) -> None:
        self._close_segment()
        self._check_room()
        path = self._path(number)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._file_bytes = 0
        self._segments.append((number, 0))
        _sync_folder(self.folder)

    def _check_room(self) -> None:
        """The last of a disk belongs to the training's checkpoints."""
        found = os.statvfs(self.folder)
        if found.f_bavail * found.f_frsize < min(_FREE_BYTES, found.f_blocks * found.f_frsize // 20):
            raise OSError(errno.ENOSPC, "the disk is nearly full")

    def _close_segment(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._file)
            os.close(self._file)
            self._file = None

    def _remember(self, record: Record) -> None:
        self._memory.append(record)
        self._memory_bytes += record.size
        while self._memory_bytes > self.memory_bytes:
            worst = max((kept.kind for kept in self._memory), default=Class.EVENTS)
            victim = next(kept for kept in self._memory if kept.kind == worst)
            self._memory.remove(victim)
            self._memory_bytes -= victim.size
            self._count("spool_unwritable", victim)

    def _flush_memory(self) -> None:
        while self._memory:
            self._write_one(self._memory[0])
            self._memory_bytes -= self._memory.popleft().size

    def sync(self) -> None:
        """Make what was appended survive a power loss. Called about once a second."""
        with self._lock:
            if self._memory:
                with contextlib.suppress(OSError):
                    self._flush_memory()
            if self._is_dirty and self._file is not None:
                with contextlib.suppress(OSError):
                    os.fsync(self._file)
                self._is_dirty = False

    # -- reading -------------------------------------------------------------------------------------------------------------

    def peek(self) -> Record | None:
        """The oldest frame that is not acknowledged, or None. It is in flight until `ack` or the next `peek`: it will not be dropped."""
        with self._lock:
            self._fill()
            record = self._reading[0] if self._reading else (self._memory[0] if self._memory else None)
            self._in_flight = record.number if record is not None else -1
            return record

    def _fill(self) -> None:
        while not self._reading and self._segments:
            first, _ = self._segments[0]
            records = [record for record in self._read(first) if record.number > self._acked]
            if records:
                self._reading.extend(records)
                return
            if len(self._segments) == 1 and self._file is not None:
                if self._file_bytes:
                    self._remove_first_segment()
                return
            self._remove_first_segment()

    def _read(self, first: int) -> list[Record]:
        try:
            return list(scan(self._path(first).read_bytes()))
        except OSError:
            return []

    def ack(self, number: int) -> None:
        """The collector has it."""
        with self._lock:
            self._acked = max(self._acked, number)
            while self._reading and self._reading[0].number <= number:
                self._reading.popleft()
            while self._memory and self._memory[0].number <= number:
                self._memory_bytes -= self._memory.popleft().size
            self._write_acked()

    @property
    def is_empty(self) -> bool:
        return self.peek() is None

    @property
    def size(self) -> int:
        """Bytes on disk and in memory."""
        with self._lock:
            return self._disk_bytes() + self._memory_bytes

    def last_notes(self) -> list[bytes]:
        """The newest notes: what an agent that died may have spooled without telling the rings. At most three frames, in a segment each."""
        with self._lock:
            return [record.note for first, _ in list(self._segments)[-3:] for record in self._read(first)]

    def take_dropped(self) -> dict[str, int]:
        with self._lock:
            taken, self.dropped = self.dropped, {}
            return taken

    # -- keeping within bounds -------------------------------------------------------------------------------------------------

    def _shrink(self) -> None:
        """Above the cap: give up the least important and oldest until a tenth is free, so that not every frame has to make room."""
        if self._disk_bytes() <= self.max_bytes:
            return
        target = self.max_bytes - self.max_bytes // 10
        for worst in (Class.SAMPLES, Class.POINTS, Class.EVENTS):
            for index in range(len(self._segments) - 1):
                if self._disk_bytes() <= target:
                    return
                self._thin(index, worst)

    def _disk_bytes(self) -> int:
        return sum(size for _, size in self._segments)

    def _thin(self, index: int, worst: Class) -> None:
        """Rewrite one closed segment without its records of class `worst`."""
        first, _ = self._segments[index]
        if worst not in self._classes.get(first, set(Class)):
            return
        records = [record for record in self._read(first) if record.number > self._acked]
        kept = [record for record in records if record.kind != worst or record.number == self._in_flight]
        draft = self.folder / f".{first}.draft"
        try:
            draft.write_bytes(b"".join(pack(record) for record in kept))
            draft.replace(self._path(first))
        except OSError:
            # No room even for less: the whole segment makes it.
            kept = []
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
                self._path(first).unlink()
        lost = [record for record in records if record not in kept]
        for record in lost:
            self._count("spool_full", record)
        numbers = {record.number for record in lost}
        self._reading = deque(record for record in self._reading if record.number not in numbers)
        self._segments[index] = (first, sum(record.size for record in kept))
        self._classes[first] = {record.kind for record in kept}

    def _count(self, reason: str, record: Record) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + record.rows + record.events

    # -- files -----------------------------------------------------------------------------------------------------------------

    def _path(self, first: int) -> Path:
        return self.folder / f"{first:020d}.seg"

    def _found_segments(self) -> list[tuple[int, int]]:
        return sorted((int(path.stem), path.stat().st_size) for path in self.folder.glob("*.seg") if path.stem.isdecimal())

    def _remove_first_segment(self) -> None:
        first, _ = self._segments.popleft()
        self._classes.pop(first, None)
        if not self._segments:
            self._close_segment()
        with contextlib.suppress(OSError):
            self._path(first).unlink()

    def _next_number(self) -> int:
        newest = self._acked
        if self._segments:
            first = self._segments[-1][0]
            newest = max([newest, first, *(record.number for record in self._read(first))])
        return newest + 1

    def _read_acked(self) -> int:
        try:
            return int((self.folder / "acked").read_text())
        except (OSError, ValueError):
            return -1

    def _write_acked(self) -> None:
        # Not synced, and torn by a kill: a few frames go out again, and the collector knows them by their (node, boot, seq).
        with contextlib.suppress(OSError):
            (self.folder / "acked").write_text(f"{self._acked:020d}")

    def close(self) -> None:
        with self._lock:
            self.sync()
            self._close_segment()

    def remove(self) -> None:
        """Forget a run whose frames have all been acknowledged."""
        with self._lock:
            self._close_segment()
            for path in self.folder.glob("*"):
                with contextlib.suppress(OSError):
                    path.unlink()
            with contextlib.suppress(OSError):
                self.folder.rmdir()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
