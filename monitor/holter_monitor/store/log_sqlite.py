"""The embedded frame log: one SQLite file, committed in groups with synchronous=FULL.

FULL is what an acknowledgement may stand on: with NORMAL a power loss took 16 % of the acknowledged commits (tests/faults/test_power_loss.py
holds both). A frame is durable when its commit returns, and not a moment before.
"""

from __future__ import annotations

import logging
import sqlite3
import struct
import threading
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import zstandard
from holter.frame import Frame

from holter_monitor.errors import DiskFull, Unavailable
from holter_monitor.store import salvage, write_ahead
from holter_monitor.store.ports import Entry, Outcome
from holter_monitor.store.presence import Presence
from holter_monitor.store.repeats import is_repeat

logger = logging.getLogger(__name__)
SCHEMA = """
CREATE TABLE IF NOT EXISTS boots (id INTEGER PRIMARY KEY, node TEXT NOT NULL, boot TEXT NOT NULL, UNIQUE (node, boot));
CREATE TABLE IF NOT EXISTS frames (
    offset INTEGER PRIMARY KEY AUTOINCREMENT, received REAL NOT NULL,
    boot INTEGER NOT NULL, seq INTEGER NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL, UNIQUE (boot, seq));
-- The keys of frames that were trimmed, as intervals: for ever known, and one row as long as an agent leaves no gap.
CREATE TABLE IF NOT EXISTS seen (boot INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (boot, first)) WITHOUT ROWID;
"""
TAIL_BYTES = 32 << 20
"""The newest frames stay in memory, decoded, for the two consumers that follow close behind."""
SPANS = """
SELECT boot, min(seq), max(seq) FROM (
    SELECT boot, seq, seq - row_number() OVER (PARTITION BY boot ORDER BY seq) AS span FROM frames WHERE offset <= ?)
GROUP BY boot, span
"""
"""The keys of the oldest frames as intervals."""
TRIM_FRAMES = 4_096
BUSY_MS = 3_000
LEVEL = -3
"""Of zstd: half of a frame of one step is the list of its columns, and goes. 3 us a frame, won back thrice by the pages that are not written; level 1
takes 15 and packs 8 % better."""


CONNECTION: dict[str, Any] = {"isolation_level": None, "check_same_thread": False, "timeout": BUSY_MS / 1000}


def prepare(connection: sqlite3.Connection, synchronous: str) -> None:
    # secure_delete is on in Debian's SQLite: a trim would write zeros over every frame, a third of its cost.
    journal = ("journal_mode=WAL", "wal_autocheckpoint=1000", f"journal_size_limit={write_ahead.SHRINK_BYTES}")
    for pragma in (*journal, f"synchronous={synchronous}", "secure_delete=OFF"):
        connection.execute(f"PRAGMA {pragma}")


def create(path: Path) -> None:
    """An empty log, to take in what is saved of a damaged one."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA)


class SqliteFrameLog:
    """Appends from one thread at a time, reads from any. One process owns the file (the data directory is locked)."""

    def __init__(self, path: Path, synchronous: str = "FULL") -> None:
        self.path, self._synchronous = path, synchronous
        self._writing = threading.Lock()
        self._reading = threading.Lock()
        self._arrived = threading.Condition()
        self._tail: list[Entry] = []
        self._tail_bytes = 0
        self._boots: dict[tuple[str, str], tuple[int, int]] = {}  # (node, boot) → its id, its highest seq
        self._pack = zstandard.ZstdCompressor(level=LEVEL).compress
        try:
            self._open()
            salvage.check(self._writer)
        except sqlite3.DatabaseError as error:
            if not salvage.is_damage(error):
                raise self._refusal(error) from error
            self._writer.close()
            self._reader.close()
            salvage.recover(path, create)
            self._open()

    def _open(self) -> None:
        self._boots.clear()
        self._broken: str | None = None
        self._writer, self._reader = (sqlite3.connect(self.path, **CONNECTION) for _ in range(2))
        for connection in (self._writer, self._reader):
            prepare(connection, self._synchronous)
        self._writer.executescript(SCHEMA)
        self._presence = Presence(self.path, write_ahead.beside(self.path))
        row = self._writer.execute("SELECT seq FROM sqlite_sequence WHERE name = 'frames'").fetchone()
        self._last = int(row[0]) if row else 0

    def append(self, bodies: Sequence[tuple[Frame, bytes]], received: float) -> list[Outcome]:
        with self._writing:
            try:
                self._presence.check()
                if self._broken:
                    self._reopen()
                return self._append(bodies, received)
            except sqlite3.Error as error:
                raise self._refusal(error) from error

    def _append(self, bodies: Sequence[tuple[Frame, bytes]], received: float) -> list[Outcome]:
        write = self._writer
        fresh: list[Entry] = []
        write.execute("BEGIN IMMEDIATE")
        try:
            outcomes = [self._insert(frame, body, received, fresh) for frame, body in bodies]
            write.execute("COMMIT")
        except BaseException:
            self._boots.clear()  # they may name rows that are about to be undone
            if write.in_transaction:
                write.execute("ROLLBACK")
            raise
        if fresh:
            self._publish(fresh)
        return outcomes

    def _insert(self, frame: Frame, body: bytes, received: float, fresh: list[Entry]) -> Outcome:
        key = (frame.node, frame.boot)
        boot, highest = self._boots.get(key) or self._load(key)
        (crc,) = struct.unpack_from("<I", body, len(body) - 4)
        if frame.seq <= highest:
            known = self._find(boot, frame.seq)
            if known is not None:
                return Outcome.REPEATED if known == crc or is_repeat(self._body(boot, frame.seq), frame) else Outcome.CONFLICT
        row = (received, boot, frame.seq, crc, self._pack(body))
        cursor = self._writer.execute("INSERT INTO frames (received, boot, seq, crc, body) VALUES (?, ?, ?, ?, ?)", row)
        self._boots[key] = (boot, max(highest, frame.seq))
        fresh.append(Entry(int(cursor.lastrowid or 0), received, body, frame))
        return Outcome.STORED

    def _load(self, key: tuple[str, str]) -> tuple[int, int]:
        row = self._writer.execute("SELECT id FROM boots WHERE node = ? AND boot = ?", key).fetchone()
        if row is None:
            created = self._writer.execute("INSERT INTO boots (node, boot) VALUES (?, ?)", key).lastrowid
            return int(created or 0), -1
        (highest,) = self._writer.execute(
            "SELECT max(coalesce((SELECT max(seq) FROM frames WHERE boot = ?1), -1), coalesce((SELECT max(last) FROM seen WHERE boot = ?1), -1))",
            row,
        ).fetchone()
        return int(row[0]), int(highest)

    def _find(self, boot: int, seq: int) -> int | None:
        """The CRC of a key that is known; -1 where only the key is left; None for a new one."""
        row = self._writer.execute("SELECT crc FROM frames WHERE boot = ? AND seq = ?", (boot, seq)).fetchone()
        if row is not None:
            return int(row[0])
        row = self._writer.execute(
            "SELECT last FROM seen WHERE boot = ? AND first <= ? ORDER BY first DESC LIMIT 1", (boot, seq)
        ).fetchone()
        return -1 if row is not None and seq <= row[0] else None

    def _body(self, boot: int, seq: int) -> bytes:
        """Empty where only the key is left."""
        row = self._writer.execute("SELECT body FROM frames WHERE boot = ? AND seq = ?", (boot, seq)).fetchone()
        return b"" if row is None else _unpack(row[0])

    def _publish(self, fresh: list[Entry]) -> None:
        with self._arrived:
            self._tail.extend(fresh)
            self._tail_bytes += sum(len(entry.body) for entry in fresh)
            surplus = 0
            while self._tail_bytes > TAIL_BYTES and surplus < len(self._tail) - 1:
                self._tail_bytes -= len(self._tail[surplus].body)
                surplus += 1
            del self._tail[:surplus]
            self._last = fresh[-1].offset
            self._arrived.notify_all()

    def read(self, after: int, limit: int = 256) -> list[Entry]:
        with self._arrived:
            if after >= self._last:
                return []
            if self._tail and self._tail[0].offset <= after + 1:
                start = bisect_right(self._tail, after, key=lambda entry: entry.offset)
                return self._tail[start : start + limit]
        with self._reading:
            try:
                rows = self._reader.execute(
                    "SELECT offset, received, body FROM frames WHERE offset > ? ORDER BY offset LIMIT ?", (after, limit)
                ).fetchall()
            except sqlite3.Error as error:
                raise Unavailable(f"the frame log cannot be read: {error}") from error
        return [Entry(offset, received, _unpack(body)) for offset, received, body in rows]

    def wait(self, after: int, timeout: float) -> bool:
        with self._arrived:
            return self._arrived.wait_for(lambda: self._last > after, timeout)

    def trim(self, through: int) -> int:
        with self._writing:
            try:
                return self._trim(through)
            except sqlite3.Error as error:
                raise self._refusal(error) from error

    def _trim(self, through: int) -> int:
        write = self._writer
        query = "SELECT count(*), max(offset) FROM (SELECT offset FROM frames WHERE offset <= ? ORDER BY offset LIMIT ?)"
        count, last = write.execute(query, (through, TRIM_FRAMES)).fetchone()
        if not count:
            return 0
        write.execute("BEGIN IMMEDIATE")
        try:
            for boot, first, newest in write.execute(SPANS, (last,)).fetchall():
                self._remember(boot, first, newest)
            write.execute("DELETE FROM frames WHERE offset <= ?", (last,))
            write.execute("COMMIT")
        except BaseException:
            if write.in_transaction:
                write.execute("ROLLBACK")
            raise
        return int(count)

    def _remember(self, boot: int, first: int, last: int) -> None:
        """Put the keys `first` to `last` of `boot` into its intervals, joining those that they touch."""
        write = self._writer
        right = write.execute("SELECT last FROM seen WHERE boot = ? AND first = ?", (boot, last + 1)).fetchone()
        if right is not None:
            write.execute("DELETE FROM seen WHERE boot = ? AND first = ?", (boot, last + 1))
            last = right[0]
        if write.execute("UPDATE seen SET last = ?3 WHERE boot = ?1 AND last = ?2 - 1", (boot, first, last)).rowcount == 0:
            write.execute("INSERT OR IGNORE INTO seen VALUES (?1, ?2, ?3)", (boot, first, last))

    def problem(self) -> str | None:
        return self._presence.problem() or self._broken or write_ahead.problem(self.path)

    def last_offset(self) -> int:
        return self._last

    def go_on_after(self, offset: int) -> None:
        with self._writing, self._arrived:
            if offset <= self._last:
                return
            logger.error("the frame log ends at offset %d, its consumers were at %d already: what lay between is lost", self._last, offset)
            self._writer.execute("DELETE FROM sqlite_sequence WHERE name = 'frames'")
            self._writer.execute("INSERT INTO sqlite_sequence VALUES ('frames', ?)", (offset,))
            self._last = offset

    def copy_to(self, folder: Path) -> None:
        with closing(sqlite3.connect(self.path)) as source, closing(sqlite3.connect(folder / self.path.name)) as copy:
            try:
                source.backup(copy)
            except sqlite3.Error as error:
                raise Unavailable(f"the frame log cannot be copied: {error}") from error

    def close(self) -> None:
        with self._writing, self._reading:
            self._writer.close()
            self._reader.close()

    def _refusal(self, error: sqlite3.Error) -> Unavailable:
        """What the agent is told. After anything but a lock or a full disk nobody knows what the file holds: it is reopened and checked."""
        words = str(error)
        if "locked" in words or "busy" in words:
            return Unavailable(f"the frame log is locked by another process: {words}", retry_after=2.0)
        if "full" in words:
            return DiskFull(f"the disk of the frame log is full: {words}")
        self._broken = f"the frame log cannot be written: {words}"
        return Unavailable(self._broken, retry_after=5.0)

    def _reopen(self) -> None:
        """A commit that failed may have left half of itself in the WAL: believe nothing but what a fresh connection reads and checks."""
        with self._reading:
            self._writer.close()
            self._reader.close()
            with self._arrived:
                self._tail.clear()
                self._tail_bytes = 0
            suspicion = self._broken
            self._open()
            self._broken = suspicion
            (verdict,) = self._writer.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(f"quick_check says: {verdict}")
            self._broken = None


def _unpack(body: bytes) -> bytes:
    """As it was appended. What is not zstd stays as it is: a log of earlier holds frames as they came, and what a disk has turned over is for the
    frame's own checksum to say."""
    with suppress(zstandard.ZstdError, MemoryError):
        return bytes(zstandard.ZstdDecompressor().decompress(body))
    return body
