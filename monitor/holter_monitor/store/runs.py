"""Runs, attempts, agents and events in the control store: what people and other parts ask of them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from holter_monitor.runs import Run
from holter_monitor.store.tables import agents, attempts, run_events, runs
from holter_monitor.store.upserts import insert_new


def find_or_create(connection: sa.Connection, wanted: Mapping[str, Any], now: float) -> tuple[sa.RowMapping, bool]:
    """The run of `(project, name)`, made if there is none; True if it was. What a later caller says of it (config, world size) replaces."""
    told = {key: value for key, value in wanted.items() if value is not None}
    row = {
        "id": uuid.uuid4().hex,
        "state": "waiting",
        "created_at": now,
        "updated_at": now,
        "world_size": 1,
        "config": {},
        "advice": {},
    } | told
    insert_new(connection, runs, [row])
    here = sa.and_(runs.c.project == wanted["project"], runs.c.name == wanted["name"])
    found = connection.execute(sa.select(runs).where(here)).mappings().one()
    is_new = found["id"] == row["id"]
    changes = {key: told[key] for key in ("world_size", "config", "reference") if key in told and found[key] != told[key]}
    if not is_new and changes:
        connection.execute(runs.update().where(here).values(**changes))
        found = connection.execute(sa.select(runs).where(here)).mappings().one()
    return found, is_new


def load(connection: sa.Connection, run: str) -> Run | None:
    row = one(connection, run)
    return None if row is None else as_run(row)


def as_run(row: sa.RowMapping) -> Run:
    return Run(**{key: row[key] for key in ("id", "project", "name", "world_size", "reference", "config")})


def one(connection: sa.Connection, run: str) -> sa.RowMapping | None:
    return connection.execute(sa.select(runs).where(runs.c.id == run)).mappings().one_or_none()


def page(
    connection: sa.Connection,
    filters: Mapping[str, str | None],
    *,
    projects: Sequence[str] | None,
    after: tuple[float, str] | None,
    limit: int,
) -> list[sa.RowMapping]:
    """Newest activity first; `after` is the last `(updated_at, id)` of the page before."""
    query = sa.select(runs).order_by(runs.c.updated_at.desc(), runs.c.id.desc()).limit(limit)
    for column in ("project", "name", "state"):
        if filters.get(column) is not None:
            query = query.where(runs.c[column] == filters[column])
    if projects is not None:
        query = query.where(runs.c.project.in_(projects))
    if after is not None:
        query = query.where(sa.tuple_(runs.c.updated_at, runs.c.id) < sa.tuple_(sa.literal(after[0]), sa.literal(after[1])))
    return list(connection.execute(query).mappings())


def attempts_of(connection: sa.Connection, run: str) -> list[sa.RowMapping]:
    return list(connection.execute(sa.select(attempts).where(attempts.c.run == run).order_by(attempts.c.number)).mappings())


def agents_of(connection: sa.Connection, run: str) -> list[sa.RowMapping]:
    query = sa.select(agents).where(agents.c.run == run).order_by(agents.c.node, agents.c.first_seen_at)
    return list(connection.execute(query).mappings())


def events_of(
    connection: sa.Connection, run: str, *, after: int = 0, limit: int = 200, words: Sequence[str] = (), without: Sequence[str] = ()
) -> list[sa.RowMapping]:
    query = sa.select(run_events).where(run_events.c.run == run, run_events.c.id > after).order_by(run_events.c.id).limit(limit)
    if words:
        query = query.where(run_events.c.event.in_(words))
    if without:
        query = query.where(run_events.c.event.not_in(without))
    return list(connection.execute(query).mappings())


def advise(connection: sa.Connection, run: str, advice: Mapping[str, Any]) -> None:
    connection.execute(runs.update().where(runs.c.id == run).values(advice=dict(advice)))
