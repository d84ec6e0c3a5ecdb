"""The control store: SQLAlchemy on SQLite (one file, no server) or PostgreSQL, opened at the newest schema."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from holter.frame import finite

from holter_monitor.errors import DiskFull, SettingsError, Unavailable
from holter_monitor.store import salvage
from holter_monitor.store.hangs import STATEMENT_SECONDS, Hangs
from holter_monitor.store.ownership import LOCK, FileOwnership, Ownership, SessionOwnership
from holter_monitor.store.presence import Presence

BUSY_SECONDS = 5.0
PATIENCE = {"connect_timeout": 5, "tcp_user_timeout": 15_000, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
"""A server whose machine is gone is given up after some 25 s; the kernel alone would wait for two hours."""
SESSION: dict[str, Any] = {
    **PATIENCE,
    "options": f"-c statement_timeout={STATEMENT_SECONDS}s -c lock_timeout=5000 -c synchronous_commit=on",
}
MIGRATIONS = Path(__file__).with_name("migrations")
FULL = ("disk is full", "No space left", "disk full")


class Control:
    """Transactions for readers and for writers. On SQLite a writer takes its lock at BEGIN: an upgrade in the middle could not be waited for."""

    def __init__(self, engine: sa.Engine, file: Path | None = None) -> None:
        self.engine = engine
        self._file = file
        self._ownership: Ownership | None = None
        self._presence = Presence(*([file] if file else []))
        self._hangs = Hangs(engine) if engine.dialect.name == "postgresql" else None

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Raises `Unavailable` if the database cannot answer now."""
        with _refusals(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Commits at the end of the block, or nothing. Raises `Unavailable` or `DiskFull`."""
        self._presence.check()
        if lost := self._lost():
            raise Unavailable(lost, retry_after=30)
        with _refusals(), self.engine.execution_options(holter_write=True).begin() as connection:
            yield connection

    def problem(self) -> str | None:
        """What keeps it from being used; None if nothing does."""
        try:
            with self.read() as connection:
                connection.execute(sa.text("SELECT 1"))
        except Unavailable as error:
            return str(error)
        return self._presence.problem() or self._lost()

    def _lost(self) -> str | None:
        return self._ownership.problem() if self._ownership else None

    def claim(self) -> None:
        """For the life of this collector. Raises `ControlStoreInUse` if another has it."""
        with _refusals():
            if self._file is not None:
                self._ownership = FileOwnership(self._file)
            elif self.engine.dialect.name == "postgresql":
                self._ownership = SessionOwnership(self.engine.url, SESSION)

    def close(self) -> None:
        if self._ownership:
            self._ownership.release()
        if self._hangs:
            self._hangs.close()
        self.engine.dispose()


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except sa.exc.DBAPIError as error:
        if isinstance(error.orig, sqlite3.Error) and salvage.is_damage(error.orig):
            raise Unavailable(
                f"the control store is damaged: {error.orig}; `holter salvage` saves what can be read", retry_after=60
            ) from error
        if not isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError):
            raise
        raise _refusal(error) from error
    except sa.exc.TimeoutError as error:
        raise _refusal(error) from error


def _refusal(error: sa.exc.SQLAlchemyError) -> Unavailable:
    words = str(getattr(error, "orig", None) or error)
    if any(full in words for full in FULL):
        return DiskFull(f"the disk of the control store is full: {words}")
    return Unavailable(f"the control store cannot be used now: {words}", retry_after=2)


def open_control(url: str) -> Control:
    """Connect and bring the schema up to date (a SQLite file is copied first). Raises `SettingsError` for a URL that cannot be used."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise SettingsError(f"--db {url!r} is no SQLAlchemy URL, like sqlite:////var/lib/holter/control.sqlite") from error
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    engine = _engine(parsed)
    file = Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None
    with _refusals():
        upgrade(engine, file)
    return Control(engine, file)


def _engine(url: sa.URL) -> sa.Engine:
    backend = url.get_backend_name()
    if backend == "sqlite":
        engine = sa.create_engine(
            url, json_serializer=_json, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False}, pool_size=8, max_overflow=8
        )
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine
    if backend == "postgresql":
        return sa.create_engine(
            url,
            json_serializer=_json,
            pool_size=8,
            max_overflow=4,
            pool_timeout=BUSY_SECONDS,
            connect_args=SESSION,
        )
    raise SettingsError(f"--db: {backend} is not supported; use sqlite or postgresql")


def _json(value: Any) -> str:
    """Strict JSON: a NaN in an incident's evidence travels as a string, PostgreSQL would refuse the literal."""
    return json.dumps(finite(value), allow_nan=False, separators=(",", ":"))


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver's own idea of when to BEGIN is off: `_begin_sqlite` says it
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={int(BUSY_SECONDS * 1000)}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    is_writer = connection.get_execution_options().get("holter_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writer else "BEGIN")


def upgrade(engine: sa.Engine, file: Path | None) -> None:
    """Run the migrations that are missing. An existing SQLite file that needs some is copied beside itself first."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    head = ScriptDirectory.from_config(config).get_current_head()
    with engine.connect() as connection:
        current = _version(connection)
    if current == head:
        return
    if current is not None and file is not None:
        backup(file, file.with_name(f"{file.name}.{current}.{int(time.time())}.backup"))
    with engine.execution_options(holter_write=True).begin() as connection:
        if connection.dialect.name == "postgresql":  # one at a time, and as long as it takes
            connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
            connection.execute(sa.text("SET LOCAL lock_timeout = 0"))
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK + 1)))
        if _version(connection) != head:  # another collector was faster
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _version(connection: sa.Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def backup(source: Path, target: Path) -> None:
    """A consistent copy of a live SQLite file (its own backup interface), complete before it has its name."""
    partial = target.with_name(target.name + ".partial")
    with sqlite3.connect(source) as live, sqlite3.connect(partial) as copy:
        live.backup(copy)
    copy.close()
    live.close()
    partial.rename(target)
