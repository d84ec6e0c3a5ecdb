"""The engines' states in the control store: what a restart begins with."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from holter_monitor.store.tables import detector_snapshots
from holter_monitor.store.tables import runs as run_rows
from holter_monitor.store.upserts import upsert


def offset(connection: sa.Connection) -> int:
    """The offset that all snapshots carry; 0 while there is none."""
    return int(connection.scalar(sa.select(sa.func.min(detector_snapshots.c.offset))) or 0)


def runs(connection: sa.Connection, *, state: str) -> list[str]:
    """The runs in this state that have a snapshot."""
    query = sa.select(detector_snapshots.c.run).join(run_rows, run_rows.c.id == detector_snapshots.c.run)
    return list(connection.scalars(query.where(run_rows.c.state == state)))


def state(connection: sa.Connection, run: str) -> bytes | None:
    found: bytes | None = connection.scalar(sa.select(detector_snapshots.c.state).where(detector_snapshots.c.run == run))
    return found


def save(connection: sa.Connection, states: Mapping[str, bytes], offset: int, now: float) -> None:
    """Write the states that changed and move all snapshots to `offset`: a run of which nothing came has the same state there."""
    there = set(connection.scalars(sa.select(run_rows.c.id).where(run_rows.c.id.in_(states))))  # one that somebody deleted needs none
    rows = [{"run": run, "offset": offset, "state": state, "taken_at": now} for run, state in states.items() if run in there]
    upsert(connection, detector_snapshots, rows, change=("offset", "state", "taken_at"))
    connection.execute(detector_snapshots.update().values(offset=offset))
