"""Requests for the stacks of a run's ranks: asked by a person or for a hang, heard by the node agents in their next acknowledgement."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from holter_monitor.stacks import Stacks
from holter_monitor.store import audit
from holter_monitor.store.tables import agents, run_events, runs

APART_SECONDS = 20.0
"""Between two requests of a run: more than a heartbeat, so that every agent that lives has heard the one before."""
LASTS_SECONDS = 120.0
"""A request is heard no longer: an agent that comes back after an hour has nothing to say about then."""
ALIVE_SECONDS = 60.0
TOGETHER_SECONDS = 120.0
MAX_ANSWERS = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request, or (`wait_seconds` > 0) why there is none yet."""

    request: dict[str, Any]
    wait_seconds: float = 0.0


def ask(
    connection: sa.Connection, run: str, actor: str, *, now: float, node: str | None = None, incident: str | None = None, reason: str = ""
) -> Asked:
    """Write the request into the run's row and the audit, unless the last one is too fresh: then the answer is that one, and the wait."""
    last = connection.scalar(sa.select(runs.c.stacks_asked).where(runs.c.id == run)) or {}
    wait = APART_SECONDS - (now - float(last.get("at", 0.0)))
    if 0.0 < wait <= APART_SECONDS:
        return Asked(request=last, wait_seconds=wait)
    request = {"id": uuid.uuid4().hex, "at": now, "actor": actor[:200], "node": node, "incident": incident, "reason": reason[:400]}
    connection.execute(runs.update().where(runs.c.id == run).values(stacks_asked=request))
    audit.record(connection, actor, "ask for stacks", run, request, now=now)
    return Asked(request=request)


def heard_by(request: Mapping[str, Any] | None, node: str, now: float) -> dict[str, Any]:
    """What an acknowledgement to this node carries of the run's request."""
    if not request or not 0.0 <= now - float(request["at"]) < LASTS_SECONDS or request["node"] not in (None, node):
        return {}
    return {"stacks": {"id": request["id"]}}


@dataclass(slots=True, kw_only=True)
class Answers:
    """The newest stacks of a run, asked for or not, and who has answered the newest request."""

    request: dict[str, Any] | None
    at: float | None
    """When the newest of them were taken, by the node's clock."""
    step: int | None
    stacks: Stacks
    answered: list[str]
    waiting: list[str]
    """Nodes that live and have not answered, while the request is still heard."""


def answers(connection: sa.Connection, run: str, now: float) -> Answers:
    request = connection.scalar(sa.select(runs.c.stacks_asked).where(runs.c.id == run))
    rows = _newest(connection, run)
    stacks = Stacks()
    for row in reversed(rows):
        stacks.add(row["attrs"]["stacks"])
    answered = {str(row["node"]) for row in rows if request and row["attrs"].get("request") == request["id"]}
    return Answers(
        request=request,
        at=rows[0]["at"] if rows else None,
        step=max((row["step"] for row in rows if row["step"] is not None), default=None),
        stacks=stacks,
        answered=sorted(answered),
        waiting=sorted(_addressed(connection, run, request, now) - answered),
    )


def _newest(connection: sa.Connection, run: str) -> list[sa.RowMapping]:
    """The newest event with stacks and those that belong to it, newest first: answers to the same request, or told about the same time."""
    query = sa.select(run_events.c.node, run_events.c.at, run_events.c.step, run_events.c.attrs)
    query = query.where(run_events.c.run == run, run_events.c.event.in_(("stacks", "rank_hung"))).order_by(run_events.c.id.desc())
    rows = [row for row in connection.execute(query.limit(MAX_ANSWERS)).mappings() if row["attrs"].get("stacks")]
    if not rows:
        return []
    request, at = rows[0]["attrs"].get("request"), rows[0]["at"]
    return [row for row in rows if (request and row["attrs"].get("request") == request) or abs(row["at"] - at) <= TOGETHER_SECONDS]


def _addressed(connection: sa.Connection, run: str, request: Mapping[str, Any] | None, now: float) -> set[str]:
    """The nodes that should hear the request."""
    if request is None or now - request["at"] >= LASTS_SECONDS:
        return set()
    query = sa.select(agents.c.node).where(agents.c.run == run, agents.c.last_seen_at >= now - ALIVE_SECONDS)
    alive = set(connection.scalars(query))
    return alive & {request["node"]} if request["node"] else alive
