"""Tokens in the control store."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import sqlalchemy as sa

from holter_monitor.store.tables import tokens


def add(
    connection: sa.Connection, *, name: str, digest: str, scopes: Sequence[str], project: str, expires: float | None, now: float
) -> str:
    """The new token's id."""
    key = uuid.uuid4().hex[:12]
    row = {"id": key, "name": name, "hash": digest, "scopes": list(scopes), "project": project, "created_at": now, "expires_at": expires}
    connection.execute(tokens.insert().values(**row))
    return key


def by_digest(connection: sa.Connection, digest: str, now: float) -> sa.RowMapping | None:
    """The token of this hash, if it is neither revoked nor expired."""
    query = sa.select(tokens).where(tokens.c.hash == digest, _alive(now))
    return connection.execute(query).mappings().one_or_none()


def are_any(connection: sa.Connection) -> bool:
    """Whether a token was ever made and not revoked: from then on one is asked for. An expired one still counts: its end must not open the door."""
    return connection.execute(sa.select(tokens.c.id).where(tokens.c.revoked_at.is_(None)).limit(1)).first() is not None


def page(connection: sa.Connection) -> list[sa.RowMapping]:
    columns = [column for column in tokens.c if column.name != "hash"]
    return list(connection.execute(sa.select(*columns).order_by(tokens.c.created_at)).mappings())


def revoke(connection: sa.Connection, word: str, now: float) -> list[str]:
    """Revoke by id or name; the ids of those that were."""
    here = sa.and_(sa.or_(tokens.c.id == word, tokens.c.name == word), tokens.c.revoked_at.is_(None))
    found = list(connection.scalars(sa.select(tokens.c.id).where(here)))
    connection.execute(tokens.update().where(here).values(revoked_at=now))
    return found


def _alive(now: float) -> sa.ColumnElement[bool]:
    return sa.and_(tokens.c.revoked_at.is_(None), sa.or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > now))
