"""A damaged SQLite file: set aside under another name, never deleted, and what can still be read goes into a fresh one."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

logger = logging.getLogger(__name__)
HEADER = 100
TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'alembic_version' ORDER BY rowid"
"""The version of the schema is the fresh file's own."""
DAMAGED = ".damaged."
"""In the names of files that were set aside."""


def is_damage(error: BaseException) -> bool:
    """Whether the file is to blame. A lock, a full disk, a missing right are another's."""
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(
        error, sqlite3.OperationalError | sqlite3.IntegrityError | sqlite3.ProgrammingError
    )


def check(connection: sqlite3.Connection) -> None:
    """Raises `sqlite3.DatabaseError` that says what is wrong with the file."""
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(str(verdict))


def set_aside(path: Path) -> Path:
    """Give a damaged file, and its write-ahead log, a name of its own. The answer is the new name."""
    aside = path.with_name(f"{path.name}{DAMAGED}{time.time_ns()}")
    for suffix in ("-wal", "-shm", ".wal", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


def recover(path: Path, create: Callable[[Path], None]) -> tuple[Path, dict[str, int]]:
    """Set the damaged file aside, have `create` make an empty one of the same tables in its place, and copy what can be read: the name under which the
    damaged one is kept, and how many rows of each table were saved."""
    aside = set_aside(path)
    create(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as fresh:
        saved = _rescue(aside, fresh, path)
    logger.error("%s was damaged; it is kept as %s, and these rows of it were saved: %s", path, aside.name, saved)
    return aside, saved


def _rescue(aside: Path, fresh: sqlite3.Connection, path: Path) -> dict[str, int]:
    copy = path.with_name(path.name + ".salvage")
    try:
        source = _readable(aside, copy, path)
        with closing(source):
            tables = [name for (name,) in fresh.execute(TABLES)]
            fresh.execute("PRAGMA foreign_keys = OFF")
            fresh.execute("BEGIN IMMEDIATE")
            saved = {table: _copy(source, fresh, table) for table in tables}
            fresh.execute("COMMIT")
            return saved
    finally:
        for suffix in ("-wal", "-shm", ""):
            copy.with_name(copy.name + suffix).unlink(missing_ok=True)


def _readable(aside: Path, copy: Path, sound: Path) -> sqlite3.Connection:
    """A connection to a copy of the damaged file. If its header is lost, that of a sound file with the same tables does as well."""
    for suffix in ("-wal", ""):
        with suppress(FileNotFoundError):
            shutil.copyfile(aside.with_name(aside.name + suffix), copy.with_name(copy.name + suffix))
    source = sqlite3.connect(copy, isolation_level=None)
    try:
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError:
        source.close()
        _lend_header(copy, sound)
        source = sqlite3.connect(copy, isolation_level=None)
    return source


def _lend_header(copy: Path, sound: Path) -> None:
    """https://www.sqlite.org/fileformat.html#the_database_header: page count, no free pages, "version valid for" as the change counter."""
    with sound.open("rb") as file:
        header = bytearray(file.read(HEADER))
    if len(header) < HEADER:
        return
    page = int.from_bytes(header[16:18], "big")
    header[28:32] = (copy.stat().st_size // (page if page > 1 else 65_536)).to_bytes(4, "big")
    header[32:40] = bytes(8)
    header[92:96] = header[24:28]
    with copy.open("r+b") as file:
        file.write(header)


def _copy(source: sqlite3.Connection, fresh: sqlite3.Connection, table: str) -> int:
    """How many rows of the table were saved. Columns that only one of the two has are left to their defaults."""
    with suppress(sqlite3.DatabaseError):
        there = {row[1] for row in source.execute(f"PRAGMA table_info({table})")}
        columns = [row[1] for row in fresh.execute(f"PRAGMA table_info({table})") if row[1] in there]
        if not columns:
            return 0
        names = ", ".join(f'"{name}"' for name in columns)
        fresh.execute(f"DELETE FROM {table}")  # noqa: S608  what `create` put there is in the old one too
        before = fresh.total_changes
        insert = f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608
        fresh.executemany(insert, _rows(source, table, names))
        return fresh.total_changes - before
    return 0


def _rows(source: sqlite3.Connection, table: str, names: str) -> Iterator[tuple[object, ...]]:
    """The rows in order, leaping over pages that cannot be read."""
    query = f"SELECT rowid, {names} FROM {table} WHERE rowid > ? ORDER BY rowid"  # noqa: S608
    after: int | None = -(2**63)
    while after is not None:
        try:
            for row in source.execute(query, (after,)):
                after = row[0]
                yield row[1:]
            return
        except sqlite3.OperationalError:  # a table without rowid: as far as it goes
            with suppress(sqlite3.DatabaseError):
                yield from source.execute(f"SELECT {names} FROM {table}")  # noqa: S608
            return
        except sqlite3.DatabaseError:
            after = _behind_the_damage(source, query, after)


def _behind_the_damage(source: sqlite3.Connection, query: str, bad: int) -> int | None:
    """The smallest rowid after which a row can be read again; None if there is none. By doubling, then by halving."""
    leap = 1
    while not _reads(source, query, good := bad + leap):
        leap *= 2
        if good > 2**62:
            return None
    while good - bad > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if _reads(source, query, middle) else (good, middle)
    return good


def _reads(source: sqlite3.Connection, query: str, after: int) -> bool:
    try:
        source.execute(query + " LIMIT 1", (after,)).fetchone()
    except sqlite3.DatabaseError:
        return False
    return True
