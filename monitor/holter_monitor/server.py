"""uvicorn around the application: one process, uvloop and httptools where there are any, clean shutdown."""

from __future__ import annotations

import dataclasses
import gc
import signal
import socket
from collections.abc import Callable

import uvicorn

from holter_monitor import app
from holter_monitor.api.patience import patient
from holter_monitor.errors import SettingsError
from holter_monitor.settings import Settings

SHUTDOWN_SECONDS = 5
BACKLOG = 2_048
COLLECTIONS = (10_000, 50, 100)
"""New objects before a look at the young ones, such looks before one at the middle-aged, and those before one at all."""


def serve(settings: Settings, ready: Callable[[Settings], None]) -> int:
    """Until SIGTERM or SIGINT; 0 then. `ready` is told the settings with the port that was found."""
    listener = listen(settings)
    settings = dataclasses.replace(settings, port=listener.getsockname()[1])
    server = _Server(config(app.build(settings), settings))
    _settle_memory()
    # uvicorn shuts down in order and then raises the signal again, for whoever had it before: an orderly end is no death by signal.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.end_soon)
    ready(settings)
    server.run(sockets=[listener])
    return 0


class _Server(uvicorn.Server):
    """Heeds a signal, too, that came before uvicorn listened for signals itself."""

    is_to_end = False

    def end_soon(self, *_: object) -> None:
        self.is_to_end = True

    async def main_loop(self) -> None:
        self.should_exit = self.should_exit or self.is_to_end
        await super().main_loop()


def _settle_memory() -> None:
    """What was built lives as long as the process: a full garbage collection that looked through it all would stop every request for 0.2 s. Frames that
    wait for the consumers are no garbage either: looked through as often as Python does by itself, they cost a tenth of the processor."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTIONS)


def listen(settings: Settings) -> socket.socket:
    """The bound socket; that the port is taken is said before any store is opened."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise SettingsError(f"--host {settings.host} --port {settings.port}: {error.strerror}; name a free port of this machine") from error
    listener.listen(BACKLOG)  # from here on a connection waits; before, it would be refused
    return listener


def config(application: object, settings: Settings) -> uvicorn.Config:
    assert callable(application)
    return uvicorn.Config(
        application,
        backlog=BACKLOG,
        log_level="warning",
        access_log=False,
        server_header=False,
        http=patient(settings.limits.header_seconds, settings.limits.body_seconds),
        limit_concurrency=settings.limits.connections,
        proxy_headers=settings.behind_proxy,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        ssl_certfile=str(settings.certificate) if settings.certificate else None,
        ssl_keyfile=str(settings.key) if settings.key else None,
    )
