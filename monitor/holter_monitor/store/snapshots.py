"""The engines' states in the control store: what a restart begins with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from holter_monitor.store.tables import detector_snapshots
from holter_monitor.store.upserts import upsert


@dataclass(frozen=True, slots=True)
class Snapshot:
    run: str
    offset: int
    state: bytes


def load(connection: sa.Connection) -> list[Snapshot]:
    query = sa.select(detector_snapshots.c.run, detector_snapshots.c.offset, detector_snapshots.c.state)
    return [Snapshot(*row) for row in connection.execute(query)]


def save(connection: sa.Connection, states: Mapping[str, bytes], offset: int, now: float) -> None:
    """Write the states that changed and move all snapshots to `offset`: a run of which nothing came has the same state there."""
    rows = [{"run": run, "offset": offset, "state": state, "taken_at": now} for run, state in states.items()]
    upsert(connection, detector_snapshots, rows, change=("offset", "state", "taken_at"))
    connection.execute(detector_snapshots.update().values(offset=offset))
