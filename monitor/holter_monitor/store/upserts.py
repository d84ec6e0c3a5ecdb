"""INSERT … ON CONFLICT for both dialects of the control store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite


def _insert(connection: sa.Connection, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def insert_new(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows whose keys are not there yet; leave the others as they are."""
    if rows:
        connection.execute(_insert(connection, table).on_conflict_do_nothing(), rows)


def upsert(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]], *, change: Sequence[str]) -> None:
    """Insert the rows; where the primary key is there, overwrite the columns `change`."""
    if rows:
        statement = _insert(connection, table)
        keys = [column.name for column in table.primary_key.columns]
        excluded = {name: statement.excluded[name] for name in change}
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=excluded), rows)
