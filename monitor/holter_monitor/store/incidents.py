"""Incidents in the control store, for reading. Alerting alone changes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from holter_monitor.store.tables import incident_history, incidents, runs


def page(
    connection: sa.Connection,
    filters: Mapping[str, str | None],
    *,
    projects: Sequence[str] | None,
    after: tuple[float, str] | None,
    limit: int,
) -> list[sa.RowMapping]:
    """Newest first; `filters` on run, project, kind, state, severity; `after` is the last `(created_at, id)` of the page before."""
    query = _select().order_by(incidents.c.created_at.desc(), incidents.c.id.desc()).limit(limit)
    for column in ("run", "project", "kind", "state", "severity"):
        if filters.get(column) is not None:
            query = query.where(incidents.c[column] == filters[column])
    if projects is not None:
        query = query.where(incidents.c.project.in_(projects))
    if after is not None:
        query = query.where(sa.tuple_(incidents.c.created_at, incidents.c.id) < sa.tuple_(sa.literal(after[0]), sa.literal(after[1])))
    return list(connection.execute(query).mappings())


def one(connection: sa.Connection, incident: str) -> sa.RowMapping | None:
    return connection.execute(_select().where(incidents.c.id == incident)).mappings().one_or_none()


def history(connection: sa.Connection, incident: str) -> list[sa.RowMapping]:
    query = sa.select(incident_history).where(incident_history.c.incident == incident).order_by(incident_history.c.id)
    return list(connection.execute(query).mappings())


def _select() -> sa.Select[tuple[object, ...]]:
    return sa.select(incidents, runs.c.name.label("run_name")).join(runs, runs.c.id == incidents.c.run)
