"""Where the GPU time of all runs went in a window of whole hours: sums of `goodput_hours`, breaks, and what incidents cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from holter_monitor.store.tables import breaks, goodput_hours, incidents, runs

ENDS = ("rank_lost", "hang", "agent_silent")
"""Kinds of incident that tell the end of an attempt: what the break cost is theirs, or their cause's."""
DEAREST = 100
"""Incidents that are listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    since: float
    until: float
    project: str | None = None
    projects: Sequence[str] | None = None
    """What the caller may see; None is all."""

    def of(self, at: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """Rows of the window; the query has `runs` in it."""
        here = sa.and_(at >= self.since, at < self.until)
        if self.project is not None:
            here = sa.and_(here, runs.c.project == self.project)
        return here if self.projects is None else sa.and_(here, runs.c.project.in_(self.projects))


def spent(connection: sa.Connection, window: Window) -> dict[str, dict[str, tuple[float, float]]]:
    """By run and cause: seconds, and seconds times ranks."""
    hours = goodput_hours.c
    query = (
        sa.select(hours.run, hours.cause, sa.func.sum(hours.seconds), sa.func.sum(hours.rank_seconds))
        .join(runs, runs.c.id == hours.run)
        .where(window.of(hours.hour_at))
        .group_by(hours.run, hours.cause)
    )
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for run, cause, seconds, rank_seconds in connection.execute(query):
        found.setdefault(run, {})[cause] = (seconds, rank_seconds)
    return found


def named(connection: sa.Connection, ids: Sequence[str]) -> list[sa.RowMapping]:
    """The runs of these ids, by project and name."""
    rows: list[sa.RowMapping] = []
    for first in range(0, len(ids), 500):
        rows += connection.execute(sa.select(runs).where(runs.c.id.in_(ids[first : first + 500]))).mappings()
    return sorted(rows, key=lambda row: (row["project"], row["name"]))


def broken(connection: sa.Connection, window: Window) -> list[sa.RowMapping]:
    query = sa.select(breaks).join(runs, runs.c.id == breaks.c.run).where(window.of(breaks.c.at)).order_by(breaks.c.at)
    return list(connection.execute(query).mappings())


def costs(connection: sa.Connection, window: Window, ended: Sequence[sa.RowMapping]) -> list[dict[str, Any]]:
    """The window's incidents that cost time, dearest first: what they lost themselves and what the break cost that they tell or caused.
    Symptoms are their cause's."""
    columns = [runs.c.name.label("run_name"), runs.c.world_size, *(incidents.c[name] for name in _SHOWN)]
    query = sa.select(*columns).join(runs, runs.c.id == incidents.c.run).where(window.of(incidents.c.created_at))
    told = {row["id"]: dict(row) for row in connection.execute(query).mappings()}
    lost = {identity: float(row["cost_seconds"] or 0.0) for identity, row in told.items()}
    for each in ended:
        owner = _owner(told, each)
        if owner is not None:
            lost[owner] += (each["down_seconds"] or 0.0) + each["startup_seconds"] + each["recomputed_seconds"]
    dear = [row | {"cost_seconds": lost[identity]} for identity, row in told.items() if row["parent"] is None and lost[identity] > 0]
    return sorted(dear, key=lambda row: -row["cost_seconds"] * row["world_size"])[:DEAREST]


_SHOWN = ("id", "run", "project", "kind", "severity", "state", "onset_step", "attempt", "parent", "summary", "cost_seconds", "created_at")


def _owner(told: Mapping[str, dict[str, Any]], ended: sa.RowMapping) -> str | None:
    """The incident that tells how this attempt ended, or the one that explains it."""
    found = [row for row in told.values() if row["run"] == ended["run"] and row["attempt"] == ended["attempt"] and row["kind"] in ENDS]
    if not found:
        return None
    row = min(found, key=lambda row: (ENDS.index(row["kind"]), row["created_at"]))
    seen = set()
    while row["parent"] in told and row["id"] not in seen:
        seen.add(row["id"])
        row = told[row["parent"]]
    return str(row["id"])
