"""Where the ranks of a run stand: the stacks that agents sent, and a request for new ones."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from holter_monitor.api.parts import TheCaller, TheParts, visible_run
from holter_monitor.api.shapes import Shape, moment, moment_or_none
from holter_monitor.errors import Problem
from holter_monitor.store import incidents, stack_requests

router = APIRouter(prefix="/api/v1", tags=["stacks"])
MAX_RANKS = 16_384


class StacksWanted(Shape):
    node: str | None = Field(None, min_length=1, max_length=200, description="only this node; without it all of the run")
    incident: str | None = Field(None, max_length=64, description="the incident that it is about")
    reason: str = Field("", max_length=400)
    actor: str | None = Field(None, max_length=200, description="who asks; the token's name if nobody is named")


ALL_NODES = StacksWanted(node=None, incident=None, reason="", actor=None)


class StacksRequest(Shape):
    id: str
    asked: str
    actor: str
    node: str | None
    incident: str | None
    reason: str

    @classmethod
    def of(cls, request: dict[str, Any]) -> StacksRequest:
        return cls(asked=moment(request["at"]), **{key: request[key] for key in ("id", "actor", "node", "incident", "reason")})


class StackGroup(Shape):
    ranks: list[int]
    count: int
    where: str = Field(description="the innermost function")
    stack: str = Field(description="innermost first, a frame a line")


class StacksShape(Shape):
    run: str
    request: StacksRequest | None = Field(description="the newest request")
    taken: str | None = Field(description="when the newest of the stacks were taken, by its node's clock")
    step: int | None
    sentence: str = Field(description="where the ranks stand, in one line")
    answered: list[str] = Field(description="nodes that have answered the request")
    waiting: list[str] = Field(description="nodes that live and have not answered yet")
    items: list[StackGroup] = Field(description="equal stacks together, the fewest ranks first")
    next: None = None


@router.get("/runs/{run}/stacks", response_model=StacksShape)
def get_stacks(run: str, parts: TheParts, caller: TheCaller) -> StacksShape:
    """The newest stacks of the run's ranks, asked for or sent by an agent whose ranks stood still."""
    with parts.control.read() as connection:
        visible_run(connection, run, caller)
        found = stack_requests.answers(connection, run, parts.clock())
    return StacksShape(
        run=run,
        request=None if found.request is None else StacksRequest.of(found.request),
        taken=moment_or_none(found.at),
        step=found.step,
        sentence=found.stacks.sentence(),
        answered=found.answered,
        waiting=found.waiting,
        items=[StackGroup(**group) for group in found.stacks.listed(named=MAX_RANKS)],
    )


@router.post("/runs/{run}/stacks", response_model=StacksRequest, status_code=202)
def ask_for_stacks(run: str, parts: TheParts, caller: TheCaller, wanted: StacksWanted | None = None) -> StacksRequest:
    """Ask the run's node agents for the Python stacks of their ranks. They hear it with their next acknowledgement, within 15 s; the ranks are
    read from outside and go on. One request in 20 s."""
    wanted = wanted or ALL_NODES
    with parts.control.write() as connection:
        row = visible_run(connection, run, caller)
        if not caller.may("operate", row["project"]):
            raise Problem(403, "Not yours to operate", field="run", value=run, remedy="use a token with the scope operate")
        about = incidents.one(connection, wanted.incident) if wanted.incident else None
        if wanted.incident and (about is None or about["run"] != run):
            raise Problem(404, "No such incident of this run", field="incident", value=wanted.incident, remedy="leave it out")
        actor = wanted.actor if wanted.actor and caller.is_anonymous else caller.name
        asked = stack_requests.ask(
            connection, run, actor, now=parts.clock(), node=wanted.node, incident=wanted.incident, reason=wanted.reason
        )
    if asked.wait_seconds > 0:
        raise Problem(
            429,
            "The stacks were just asked for",
            field="run",
            value=run,
            remedy="GET them, or ask again later",
            retry_after=asked.wait_seconds,
        )
    parts.known.forget(run)
    return StacksRequest.of(asked.request)
