"""Runs: create or find, list, look at; their attempts, agents, events and metrics."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from holter_monitor.api import cursors
from holter_monitor.api.parts import TheCaller, TheParts, visible_run
from holter_monitor.api.shapes import (
    Agents,
    AgentShape,
    Attempts,
    AttemptShape,
    EventPage,
    EventShape,
    NewRun,
    RunPage,
    RunShape,
)
from holter_monitor.errors import Problem
from holter_monitor.store import audit, runs

router = APIRouter(prefix="/api/v1", tags=["runs"])
Limit = Annotated[int, Query(ge=1, le=500)]


@router.post("/runs", response_model=RunShape, responses={201: {"model": RunShape}})
def create_run(wanted: NewRun, parts: TheParts, caller: TheCaller, response: Response) -> RunShape:
    """Create the run, or find the one of this project and name."""
    if not caller.may("write", wanted.project):
        raise Problem(403, "Not your project", field="project", value=wanted.project, remedy="use a token that writes this project")
    with parts.control.write() as connection:
        row, is_new = runs.find_or_create(connection, wanted.model_dump(), parts.clock())
    parts.known.forget(row["id"])
    response.status_code = 201 if is_new else 200
    return RunShape.of(row, parts.settings)


@router.get("/runs", response_model=RunPage)
def list_runs(
    parts: TheParts,
    caller: TheCaller,
    *,
    project: str | None = None,
    name: str | None = None,
    state: str | None = None,
    cursor: str | None = None,
    limit: Limit = 100,
) -> RunPage:
    """The runs, newest activity first."""
    after = cursors.read(cursor, float, str)
    with parts.control.read() as connection:
        rows = runs.page(
            connection, {"project": project, "name": name, "state": state}, projects=caller.projects, after=after, limit=limit + 1
        )
    more = cursors.write(rows[limit - 1]["updated_at"], rows[limit - 1]["id"]) if len(rows) > limit else None
    return RunPage(items=[RunShape.of(row, parts.settings) for row in rows[:limit]], next=more)


@router.get("/runs/{run}", response_model=RunShape)
def get_run(run: str, parts: TheParts, caller: TheCaller) -> RunShape:
    with parts.control.read() as connection:
        return RunShape.of(visible_run(connection, run, caller), parts.settings)


@router.get("/runs/{run}/attempts", response_model=Attempts)
def list_attempts(run: str, parts: TheParts, caller: TheCaller) -> Attempts:
    """From start to crash or end, a restart is a new one; with the place of each rank."""
    with parts.control.read() as connection:
        visible_run(connection, run, caller)
        return Attempts(items=[AttemptShape.of(row) for row in runs.attempts_of(connection, run)])


@router.get("/runs/{run}/agents", response_model=Agents)
def list_agents(run: str, parts: TheParts, caller: TheCaller) -> Agents:
    """The node agents that report: last word, what they dropped, how their clock stands to ours."""
    with parts.control.read() as connection:
        visible_run(connection, run, caller)
        return Agents(items=[AgentShape.of(row) for row in runs.agents_of(connection, run)])


@router.get("/runs/{run}/events", response_model=EventPage)
def list_events(
    run: str,
    parts: TheParts,
    caller: TheCaller,
    *,
    event: Annotated[list[str] | None, Query()] = None,
    without: Annotated[list[str] | None, Query(description="leave out events of these words")] = None,
    cursor: str | None = None,
    limit: Limit = 200,
) -> EventPage:
    """What the run, its agents and its users declared, oldest first."""
    after = cursors.read(cursor, int)
    with parts.control.read() as connection:
        visible_run(connection, run, caller)
        rows = runs.events_of(connection, run, after=after[0] if after else 0, limit=limit + 1, words=event or (), without=without or ())
    more = cursors.write(rows[limit - 1]["id"]) if len(rows) > limit else None
    return EventPage(items=[EventShape.of(row) for row in rows[:limit]], next=more)


@router.get("/runs/{run}/metrics")
def list_metrics(run: str, parts: TheParts, caller: TheCaller) -> dict[str, Any]:
    """The names of the run's metrics, in the order of their appearance."""
    with parts.control.read() as connection:
        visible_run(connection, run, caller)
    return {"items": parts.samples.metrics(run), "next": None}


@router.put("/runs/{run}/advice", response_model=RunShape)
def advise(run: str, advice: dict[str, Any], parts: TheParts, caller: TheCaller) -> RunShape:
    """Ask something of the run (`{"stop": true, "reason": "…"}`); it rides in the next acknowledgement to each of its agents. `{}` takes it back."""
    with parts.control.write() as connection:
        row = visible_run(connection, run, caller)
        if not caller.may("operate", row["project"]):
            raise Problem(403, "Not yours to operate", field="run", value=run, remedy="use a token with the scope operate")
        runs.advise(connection, run, advice)
        audit.record(connection, caller.name, "advise", run, advice, now=parts.clock())
        row = visible_run(connection, run, caller)
    parts.known.forget(run)
    return RunShape.of(row, parts.settings)
