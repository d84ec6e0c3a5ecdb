"""Silences: what nobody needs to hear of for a while."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa
from fastapi import APIRouter, Response
from pydantic import AwareDatetime, Field

from holter_monitor.api.parts import TheCaller, TheParts
from holter_monitor.api.shapes import Shape, moment
from holter_monitor.errors import Problem
from holter_monitor.store.tables import silences

router = APIRouter(prefix="/api/v1/silences", tags=["silences"])


class NewSilence(Shape):
    matchers: dict[str, str] = Field(min_length=1, max_length=20, examples=[{"project": "smol", "kind": "loss_*"}])
    reason: str = Field(min_length=1, max_length=10_000)
    author: str | None = Field(None, max_length=200, description="the token's name if nobody is named")
    starts: AwareDatetime | None = Field(None, description="now, if it is not said")
    ends: AwareDatetime


class SilenceShape(Shape):
    id: str
    matchers: dict[str, str]
    reason: str
    author: str
    starts: str
    ends: str


class SilenceList(Shape):
    items: list[SilenceShape]
    next: None = None


@router.get("", response_model=SilenceList)
def list_silences(parts: TheParts, caller: TheCaller) -> SilenceList:
    """Those that are not over."""
    query = sa.select(silences).where(silences.c.ends_at > parts.clock()).order_by(silences.c.ends_at)
    with parts.control.read() as connection:
        rows = connection.execute(query).mappings().all()
    seen = [row for row in rows if caller.project == "*" or row["matchers"].get("project") == caller.project]
    return SilenceList(items=[_shape(row) for row in seen])


@router.post("", response_model=SilenceShape, status_code=201)
def add_silence(wanted: NewSilence, parts: TheParts, caller: TheCaller) -> SilenceShape:
    """Hide what matches all patterns (shell style), until `ends`."""
    now = parts.clock()
    if not caller.may("operate", wanted.matchers.get("project", "*")):
        raise Problem(
            403, "Not yours to silence", field="matchers.project", value=wanted.matchers.get("project"), remedy="name your own project"
        )
    starts, ends = (wanted.starts or dt.datetime.fromtimestamp(now, dt.timezone.utc)).timestamp(), wanted.ends.timestamp()
    if ends <= max(now, starts):
        raise Problem(
            422, "The silence would be over", field="ends", value=wanted.ends.isoformat(), remedy="a time to come, after its start"
        )
    author = wanted.author if wanted.author and caller.is_anonymous else caller.name
    try:
        with parts.control.write() as connection:
            silence = parts.operator.add_silence(
                connection, matchers=wanted.matchers, author=author, reason=wanted.reason, starts=starts, ends=ends, now=now
            )
    except ValueError as error:
        raise Problem(422, "No such silence", field="matchers", value=str(wanted.matchers), remedy=str(error)) from error
    return SilenceShape(
        id=silence.id, matchers=wanted.matchers, reason=wanted.reason, author=author, starts=moment(starts), ends=moment(ends)
    )


@router.delete("/{silence}", status_code=204)
def end_silence(silence: str, parts: TheParts, caller: TheCaller) -> Response:
    """End it now."""
    with parts.control.write() as connection:
        row = connection.execute(sa.select(silences).where(silences.c.id == silence)).mappings().one_or_none()
        if row is None or not caller.may("operate", row["matchers"].get("project", "*")):
            raise Problem(404, "No such silence", field="silence", value=silence, remedy="GET /api/v1/silences lists them")
        parts.operator.end_silence(connection, silence, caller.name, parts.clock())
    return Response(status_code=204)


def _shape(row: sa.RowMapping) -> SilenceShape:
    same = {key: row[key] for key in ("id", "matchers", "reason", "author")}
    return SilenceShape(**same, starts=moment(row["starts_at"]), ends=moment(row["ends_at"]))
