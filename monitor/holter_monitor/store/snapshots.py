"""The engines' states in the control store: what a restart begins with."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from holter_monitor.store.tables import consumers, detector_snapshots
from holter_monitor.store.tables import runs as run_rows
from holter_monitor.store.upserts import upsert

NAME = "snapshots"


def offset(connection: sa.Connection) -> int:
    """From here on the log is needed: what came before is in the snapshots. 0 while nobody has said so: the log is still whole."""
    return int(connection.scalar(sa.select(consumers.c.offset).where(consumers.c.name == NAME)) or 0)


def runs(connection: sa.Connection, *, state: str) -> list[str]:
    """The runs in this state that have a snapshot."""
    query = sa.select(detector_snapshots.c.run).join(run_rows, run_rows.c.id == detector_snapshots.c.run)
    return list(connection.scalars(query.where(run_rows.c.state == state)))


def state(connection: sa.Connection, run: str) -> tuple[bytes, int] | None:
    """The run's newest state, and the offset up to which its frames are in it."""
    query = sa.select(detector_snapshots.c.state, detector_snapshots.c.offset).where(detector_snapshots.c.run == run)
    row = connection.execute(query).one_or_none()
    return None if row is None else (row.state, row.offset)


def keep(connection: sa.Connection, states: Mapping[str, bytes], offset: int, now: float) -> None:
    """Write the states of some runs, in which all their frames up to `offset` are."""
    there = set(connection.scalars(sa.select(run_rows.c.id).where(run_rows.c.id.in_(states))))  # one that somebody deleted needs none
    rows = [{"run": run, "offset": offset, "state": state, "taken_at": now} for run, state in states.items() if run in there]
    upsert(connection, detector_snapshots, rows, change=("offset", "state", "taken_at"))


def release(connection: sa.Connection, offset: int, now: float) -> None:
    """The newest states of all runs hold all their frames up to `offset`: the log is needed from there on."""
    upsert(connection, consumers, [{"name": NAME, "offset": offset, "updated_at": now}], change=("offset", "updated_at"))
