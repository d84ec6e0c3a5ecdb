"""Ends conversations that a PostgreSQL server no longer takes part in.

The server gives a statement up after its `statement_timeout`; if it has not even said that some seconds later, it is not there. Where its machine is gone the
kernel finds out (`tcp_user_timeout`), but not behind a proxy that still acknowledges every byte: the thread that waits would wait for ever, though a
new connection would find the server that took over.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import sqlalchemy as sa

logger = logging.getLogger(__name__)
STATEMENT_SECONDS = 20
"""After which the server itself gives a statement up."""
HANG_SECONDS = STATEMENT_SECONDS + 5.0


class Hangs:
    """Knows since when each connection has been waiting for an answer; a thread shuts those down that have waited too long."""

    def __init__(self, engine: sa.Engine) -> None:
        self._since: dict[Any, float] = {}
        self._closing = threading.Event()
        for event in ("before_cursor_execute", "commit", "rollback"):
            sa.event.listen(engine, event, self._asked)
        sa.event.listen(engine, "after_cursor_execute", self._answered)
        sa.event.listen(engine, "checkout", self._greet)
        for event in ("checkin", "close", "invalidate"):
            sa.event.listen(engine, event, self._parted)
        self._thread = threading.Thread(target=self._watch, name="holter-hangs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()

    def _asked(self, connection: sa.Connection, *_: Any) -> None:
        if not connection.invalidated:  # the driver's connection is gone, and asking for it would raise
            self._since[connection.connection.dbapi_connection] = time.monotonic()

    def _answered(self, connection: sa.Connection, *_: Any) -> None:
        self._since.pop(connection.connection.dbapi_connection, None)

    def _parted(self, driver: Any, *_: Any) -> None:
        self._since.pop(driver, None)

    def _greet(self, driver: Any, _record: Any, _proxy: Any) -> None:
        """Ask whether it is still there (what `pool_pre_ping` does, which cannot be watched)."""
        self._since[driver] = time.monotonic()
        try:
            driver.execute("")
            driver.rollback()
        except Exception as error:
            raise sa.exc.DisconnectionError(str(error)) from error
        finally:
            self._since.pop(driver, None)

    def _watch(self) -> None:
        while not self._closing.wait(1.0):
            late = time.monotonic() - HANG_SECONDS
            for driver, since in list(self._since.items()):
                if since < late and self._since.pop(driver, 0.0):
                    logger.warning("PostgreSQL has not answered for %.0f s: the connection is given up", HANG_SECONDS)
                    _shut_down(driver)


def _shut_down(driver: Any) -> None:
    """Whoever waits on it hears that the connection is at its end, and closes it."""
    with suppress(Exception), socket.socket(fileno=driver.fileno()) as connection:
        try:
            connection.shutdown(socket.SHUT_RDWR)
        finally:
            connection.detach()
