"""A control store belongs to one collector: its offsets and its events are numbered by that collector's own frame log, and a second one would undo them."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa

from holter_monitor.errors import ControlStoreInUse

logger = logging.getLogger(__name__)
LOCK = 0x486F6C746572
"""PostgreSQL's advisory lock of the collector that uses the database ("Holter")."""
CHECK_SECONDS = 5.0
GIVE_UP = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
"""The server's own patience: the lock of a collector whose machine is gone must not keep its successor out for two hours."""
IN_USE = "another collector uses this control store; stop it, or give this one another --db"


class Ownership(Protocol):
    """Held until `release`."""

    def problem(self) -> str | None:
        """Why it is not ours any more; None while it is."""
        ...

    def release(self) -> None: ...


class FileOwnership:
    """Of an SQLite file: a lock beside it, which ends with the process."""

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file.with_name(file.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise ControlStoreInUse(IN_USE) from error

    def problem(self) -> str | None:
        return None

    def release(self) -> None:
        with suppress(OSError):
            os.close(self._descriptor)


class SessionOwnership:
    """Of a PostgreSQL database: an advisory lock on a connection of its own, with which it ends. A thread looks after it: after a restart of the server it is
    taken again, unless somebody else was faster."""

    def __init__(self, url: sa.URL, arguments: dict[str, Any]) -> None:
        arguments = arguments | {"options": f"{arguments['options']} {GIVE_UP}"}
        self._engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT", connect_args=arguments)
        self._connection: sa.Connection | None = None
        self._lost: str | None = None
        self._closing = threading.Event()
        if not self._take():
            raise ControlStoreInUse(IN_USE)
        threading.Thread(target=self._watch, name="holter-ownership", daemon=True).start()

    def problem(self) -> str | None:
        return self._lost

    def release(self) -> None:
        self._closing.set()
        if self._connection is not None:
            with suppress(sa.exc.SQLAlchemyError):
                self._connection.close()

    def _take(self) -> bool:
        self._connection = self._engine.connect()
        return bool(self._connection.scalar(sa.select(sa.func.pg_try_advisory_lock(LOCK))))

    def _watch(self) -> None:
        while not self._closing.wait(CHECK_SECONDS):
            try:
                self._look()
            except sa.exc.SQLAlchemyError as error:  # the server is away: nobody else has it either
                logger.warning("the lock of the control store is looked at again later: %s", getattr(error, "orig", None) or error)
                self._drop()

    def _look(self) -> None:
        if self._connection is not None and self._lost is None:
            self._connection.execute(sa.text("SELECT 1"))
        elif self._take():
            self._lost = None
        else:
            self._drop()
            if self._lost is None:
                logger.error(IN_USE)
            self._lost = IN_USE

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sa.exc.SQLAlchemyError):
                connection.invalidate()
                connection.close()
