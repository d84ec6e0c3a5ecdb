"""Who changed what, and when: every change that a person makes leaves a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from holter_monitor.store.tables import audit


def record(
    connection: sa.Connection, actor: str, action: str, subject: str, detail: Mapping[str, Any] | None = None, *, now: float
) -> None:
    """In the transaction of the change itself."""
    connection.execute(audit.insert().values(at=now, actor=actor[:200], action=action, subject=subject[:200], detail=dict(detail or {})))


def page(connection: sa.Connection, *, after: int | None, limit: int) -> list[sa.RowMapping]:
    """Newest first; `after` is the last id of the page before."""
    query = sa.select(audit).order_by(audit.c.id.desc()).limit(limit)
    if after is not None:
        query = query.where(audit.c.id < after)
    return list(connection.execute(query).mappings())
