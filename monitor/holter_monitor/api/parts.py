"""What a route may call: the parts that `holter_monitor.app` has built, and who is asking."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

import sqlalchemy as sa
from fastapi import Depends, Request

from holter_monitor.alerting.dispatch import Dispatch
from holter_monitor.alerting.silences import Silence
from holter_monitor.api.access import Access
from holter_monitor.api.aside import Aside
from holter_monitor.api.callers import ANYBODY, Caller
from holter_monitor.api.known import KnownRuns
from holter_monitor.broadcast import Broadcast
from holter_monitor.consumers.janitor import Janitor
from holter_monitor.consumers.pipeline import Consumer
from holter_monitor.errors import Problem
from holter_monitor.ingest import Committer
from holter_monitor.meters import Meters
from holter_monitor.room import Room
from holter_monitor.settings import Settings
from holter_monitor.store import runs
from holter_monitor.store.control import Control
from holter_monitor.store.ports import FrameLog, SampleStore


class Operator(Protocol):
    """What people do to incidents (`holter_monitor.alerting.alerting.Alerting`), in the caller's transaction, audited there."""

    def acknowledge(self, connection: sa.Connection, incident: str, actor: str, now: float) -> object: ...
    def resolve(self, connection: sa.Connection, incident: str, actor: str, now: float) -> object: ...
    def note(self, connection: sa.Connection, incident: str, actor: str, text: str, now: float) -> object: ...
    def end_silence(self, connection: sa.Connection, silence: str, actor: str, now: float) -> None: ...
    def add_silence(
        self, connection: sa.Connection, *, matchers: dict[str, str], author: str, reason: str, starts: float, ends: float, now: float
    ) -> Silence: ...


@dataclass(slots=True, kw_only=True)
class Parts:
    settings: Settings
    control: Control
    log: FrameLog
    samples: SampleStore
    committer: Committer
    room: Room
    meters: Meters
    broadcast: Broadcast
    known: KnownRuns
    access: Access
    operator: Operator
    dispatch: Dispatch
    consumers: list[Consumer]
    janitor: Janitor
    aside: Aside = field(default_factory=lambda: Aside("holter-ready", threads=2))
    clock: Callable[[], float] = time.time


def parts_of(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


def caller_of(request: Request) -> Caller:
    caller: Caller = request.scope.get("holter.caller", ANYBODY)
    return caller


TheParts = Annotated[Parts, Depends(parts_of)]
TheCaller = Annotated[Caller, Depends(caller_of)]


def visible_run(connection: sa.Connection, run: str, caller: Caller) -> sa.RowMapping:
    """The run, if there is one and the caller's project is its. Another project's run does not exist for him: the same 404."""
    row = runs.one(connection, run)
    if row is None or not caller.may("read", row["project"]):
        raise Problem(404, "No such run", field="run", value=run, remedy="GET /api/v1/runs lists the runs and their ids")
    return row


def text(value: Any, limit: int = 200) -> str:
    """`value` as it may stand in an answer: short, printable."""
    shown = value if isinstance(value, str) else repr(value)
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in shown[:limit])
