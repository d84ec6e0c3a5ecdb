"""Incidents: list, look at, acknowledge, resolve, note; silences."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from holter_monitor.api import cursors
from holter_monitor.api.callers import Caller
from holter_monitor.api.parts import Parts, TheCaller, TheParts
from holter_monitor.api.shapes import ChangeShape, IncidentDetail, IncidentPage, IncidentShape, Shape
from holter_monitor.errors import Problem
from holter_monitor.store import incidents

router = APIRouter(prefix="/api/v1", tags=["incidents"])


class Remark(Shape):
    note: str | None = Field(None, max_length=10_000)
    actor: str | None = Field(None, max_length=200, description="who does it; the token's name if nobody is named")


NO_REMARK = Remark(note=None, actor=None)


@router.get("/incidents", response_model=IncidentPage)
def list_incidents(
    parts: TheParts,
    caller: TheCaller,
    *,
    run: str | None = None,
    state: str | None = None,
    kind: str | None = None,
    severity: str | None = None,
    project: str | None = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> IncidentPage:
    """Newest first."""
    after = cursors.read(cursor, float, str)
    filters = {"run": run, "state": state, "kind": kind, "severity": severity, "project": project}
    with parts.control.read() as connection:
        rows = incidents.page(connection, filters, projects=caller.projects, after=after, limit=limit + 1)
    more = cursors.write(rows[limit - 1]["created_at"], rows[limit - 1]["id"]) if len(rows) > limit else None
    return IncidentPage(items=[IncidentShape.of(row, parts.settings) for row in rows[:limit]], next=more)


@router.get("/incidents/{incident}", response_model=IncidentDetail)
def get_incident(incident: str, parts: TheParts, caller: TheCaller) -> IncidentDetail:
    """The incident with its history."""
    return _detail(incident, parts, caller)


def _detail(incident: str, parts: Parts, caller: Caller) -> IncidentDetail:
    with parts.control.read() as connection:
        row = incidents.one(connection, incident)
        if row is None or not caller.may("read", row["project"]):
            raise _missing(incident)
        history = [ChangeShape.of(change) for change in incidents.history(connection, incident)]
    return IncidentDetail(**IncidentShape.of(row, parts.settings).model_dump(), history=history)


@router.post("/incidents/{incident}/acknowledge", response_model=IncidentDetail)
def acknowledge(incident: str, parts: TheParts, caller: TheCaller, remark: Remark | None = None) -> IncidentDetail:
    """Somebody is at it: no more reminders."""
    return _operate("acknowledge", incident, parts, caller, remark or NO_REMARK)


@router.post("/incidents/{incident}/resolve", response_model=IncidentDetail)
def resolve(incident: str, parts: TheParts, caller: TheCaller, remark: Remark | None = None) -> IncidentDetail:
    """It is over."""
    return _operate("resolve", incident, parts, caller, remark or NO_REMARK)


@router.post("/incidents/{incident}/note", response_model=IncidentDetail)
def add_note(incident: str, parts: TheParts, caller: TheCaller, remark: Remark) -> IncidentDetail:
    """A word for whoever looks next."""
    if not remark.note:
        raise Problem(422, "A note needs words", field="note", value=remark.note, remedy='send {"note": "…"}')
    return _operate("note", incident, parts, caller, remark)


def _operate(verb: str, incident: str, parts: Parts, caller: Caller, remark: Remark) -> IncidentDetail:
    now = parts.clock()
    actor = remark.actor if remark.actor and caller.is_anonymous else caller.name
    with parts.control.write() as connection:
        row = incidents.one(connection, incident)
        if row is None or not caller.may("read", row["project"]):
            raise _missing(incident)
        if not caller.may("operate", row["project"]):
            raise Problem(403, "Not yours to operate", field="incident", value=incident, remedy="use a token with the scope operate")
        if verb == "acknowledge":
            parts.operator.acknowledge(connection, incident, actor, now)
        elif verb == "resolve":
            parts.operator.resolve(connection, incident, actor, now)
        if remark.note:
            parts.operator.note(connection, incident, actor, remark.note, now)
    parts.broadcast.publish({"type": "incidents", "run": row["run"], "incident": incident})
    return _detail(incident, parts, caller)


def _missing(incident: str) -> Problem:
    return Problem(404, "No such incident", field="incident", value=incident, remedy="GET /api/v1/incidents lists them")
