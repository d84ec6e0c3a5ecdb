"""Builds the collector: the only file that knows all its parts."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fastapi import FastAPI
from holter.frame import Frame
from starlette.routing import Route

from holter_monitor import __version__, ui
from holter_monitor.alerting.dispatch import Dispatch
from holter_monitor.api import (
    backups,
    checkpoints,
    curves,
    fleet,
    goodput,
    groups,
    health,
    heatmap,
    incidents,
    openapi,
    otlp,
    picture,
    places,
    points,
    problems,
    runs,
    series,
    session,
    silences,
    stacks,
    stream,
)
from holter_monitor.api.access import Access
from holter_monitor.api.answers import Answers
from holter_monitor.api.frames import Frames
from holter_monitor.api.gate import FRAMES, Gate
from holter_monitor.api.known import KnownRuns
from holter_monitor.api.parts import Parts
from holter_monitor.broadcast import Broadcast
from holter_monitor.consumers.detection import Detection
from holter_monitor.consumers.janitor import Janitor
from holter_monitor.consumers.judges import Engines
from holter_monitor.consumers.pipeline import Consumer, SampleWriter
from holter_monitor.consumers.quarantine import Quarantine
from holter_monitor.consumers.retention import sweep
from holter_monitor.errors import DataDirectoryInUse, SettingsError
from holter_monitor.gauges import Content, Flow, Health
from holter_monitor.ingest import Committer
from holter_monitor.meters import Meters
from holter_monitor.room import Room
from holter_monitor.settings import Settings
from holter_monitor.store.control import open_control
from holter_monitor.store.log_sqlite import SqliteFrameLog
from holter_monitor.store.references import References
from holter_monitor.store.retention_duckdb import DuckDbStore
from holter_monitor.store.tally import Tally


def build(settings: Settings) -> Gate:
    """The application, its stores opened and its threads ready to start with its lifespan. Raises `MonitorError` if one cannot be opened."""
    lock = claim(settings.data)
    parts = assemble(settings)
    refuse_open_door(parts)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        parts.broadcast.open(asyncio.get_running_loop())
        await asyncio.to_thread(start, parts, asyncio.get_running_loop())
        try:
            yield
        finally:
            parts.broadcast.close()
            await asyncio.to_thread(stop, parts)
            lock.close()

    app = FastAPI(title="Holter", version=__version__, lifespan=lifespan, description="Health of training runs.")
    app.add_middleware(Answers)
    app.state.parts = parts
    problems.install(app)
    openapi.install(app)
    for part in (
        health,
        backups,
        session,
        runs,
        series,
        groups,
        curves,
        goodput,
        checkpoints,
        fleet,
        heatmap,
        places,
        points,
        otlp,
        incidents,
        picture,
        silences,
        stacks,
        stream,
    ):
        app.include_router(part.router)
    ui.mount(app)
    frames = Frames(parts)
    app.router.routes.append(Route(FRAMES, frames, methods=["POST"]))  # for the other methods' 405
    return Gate(app, frames, parts)


def refuse_open_door(parts: Parts) -> None:
    """A public address needs tokens, and something that encrypts them."""
    settings = parts.settings
    if settings.is_loopback:
        return
    if not parts.access.needs_token():
        raise SettingsError(
            f"--host {settings.host} is public and there are no tokens: make one with `holter token create`, or stay on 127.0.0.1"
        )
    if settings.certificate is None and not settings.behind_proxy:
        raise SettingsError(
            f"--host {settings.host} is public: give --tls-certificate and --tls-key, or --behind-proxy if a proxy speaks TLS"
        )


def claim(data: Path) -> LockedDirectory:
    """Make the data directory, private, and hold it: two collectors on one log would each believe that they own it."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        return LockedDirectory(data)
    except OSError as error:
        raise SettingsError(f"--data {data}: {error.strerror}; name a directory that can be written") from error


class LockedDirectory:
    def __init__(self, data: Path) -> None:
        self._descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise DataDirectoryInUse(f"another collector runs on {data}; stop it, or give this one another --data") from error

    def close(self) -> None:
        with suppress(OSError):
            os.close(self._descriptor)


def assemble(settings: Settings) -> Parts:
    """Open the stores and put the parts together."""
    control = open_control(settings.control_url)
    control.claim()
    log = SqliteFrameLog(settings.data / "frames.sqlite")
    samples = DuckDbStore(settings.data / "samples.duckdb", metrics_per_run=settings.limits.metrics_per_run)
    meters, broadcast = Meters(), Broadcast()
    dispatch = Dispatch(control, samples, link=settings.url, policies=settings.policies, environ=os.environ, is_alone=settings.db is None)
    room = Room(settings.data, free_disk_bytes=settings.limits.free_disk_bytes, memory_bytes=settings.limits.memory_bytes)
    committer = Committer(log, meters, room=room, waiting_bytes=settings.limits.waiting_bytes)
    consumers: list[Consumer] = [SampleWriter(log, samples, meters)]
    if settings.detect:
        consumers.append(
            Detection(
                log,
                control,
                meters,
                bench=Engines(References(control)),
                alarm=dispatch.alerting,
                wake=dispatch.deliveries.wake,
                broadcast=broadcast,
                set_aside=Quarantine(settings.data / "quarantine", meters).take,
            )
        )
    known = KnownRuns(control)
    janitor = Janitor(
        log,
        consumers,
        forget=lambda: sweep(samples, control, settings.retention, time.time()),
        tally=Tally(control).catch_up if settings.detect else None,
    )
    parts = Parts(
        settings=settings,
        control=control,
        log=log,
        samples=samples,
        committer=committer,
        room=room,
        meters=meters,
        broadcast=broadcast,
        known=known,
        access=Access(control, is_open=settings.is_loopback),
        operator=dispatch.alerting,
        dispatch=dispatch,
        consumers=consumers,
        janitor=janitor,
    )
    meters.ask((Flow(parts), Health(parts), Content(parts)))
    return parts


def start(parts: Parts, loop: asyncio.AbstractEventLoop) -> None:
    def submit(frame: Frame, body: bytes) -> None:
        asyncio.run_coroutine_threadsafe(parts.committer.submit(frame, body), loop).result(20)

    for consumer in parts.consumers:
        consumer.start()
    parts.log.go_on_after(max(consumer.offset for consumer in parts.consumers))
    parts.committer.start()
    parts.janitor.start()
    parts.dispatch.start(submit)


def stop(parts: Parts) -> None:
    """In the order of the data's way: what was acknowledged is in the log, and the next life goes on from the offsets."""
    parts.committer.stop()
    parts.janitor.stop()
    for consumer in parts.consumers:
        consumer.stop()
    parts.dispatch.stop(5)
    for asking in (parts.known, parts.access, parts.aside):
        asking.close()
    parts.samples.close()
    parts.log.close()
    parts.control.close()
