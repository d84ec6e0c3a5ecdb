"""The shapes of answers, for OpenAPI and for whoever reads the code."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from holter_monitor.settings import Settings


def moment(seconds: float) -> str:
    """RFC 3339 in UTC, milliseconds."""
    return dt.datetime.fromtimestamp(seconds, dt.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment_or_none(seconds: float | None) -> str | None:
    return None if seconds is None else moment(seconds)


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """RFC 9457, with the field, its value and the remedy."""

    type: str = "about:blank"
    title: str
    status: int
    field: str | None = None
    value: str | None = None
    remedy: str | None = None


def printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("1 to 200 printable characters")
    return text


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(printable)]


class NewRun(Shape):
    project: Name = Field("default", examples=["smol"])
    name: Name = Field(examples=["3b"])
    world_size: int | None = Field(None, ge=1, le=1_048_576)
    reference: str | None = Field(None, max_length=200, description="the run that this one is measured against")
    config: dict[str, Any] | None = None


class RunShape(Shape):
    id: str
    project: str
    name: str
    state: str = Field(description="waiting, running, finished, failed, silent")
    world_size: int
    last_step: int | None
    reference: str | None
    config: dict[str, Any]
    advice: dict[str, Any]
    created: str
    updated: str
    url: str

    @classmethod
    def of(cls, row: Mapping[Any, Any], settings: Settings) -> RunShape:
        same = {key: row[key] for key in ("id", "project", "name", "state", "world_size", "last_step", "reference", "config", "advice")}
        return cls(**same, created=moment(row["created_at"]), updated=moment(row["updated_at"]), url=f"{settings.url}/#/runs/{row['id']}")


class RunPage(Shape):
    items: list[RunShape]
    next: str | None


class AttemptShape(Shape):
    attempt: str
    number: int
    state: str = Field(description="running, finished, failed, lost, preempted")
    started: str
    ended: str | None
    world_size: int
    first_step: int | None
    last_step: int | None
    mesh: dict[str, Any] = Field(description='rank → {"node", "gpu", "dp", "tp", …}')

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> AttemptShape:
        same = {key: row[key] for key in ("attempt", "number", "state", "world_size", "first_step", "last_step", "mesh")}
        return cls(**same, started=moment(row["started_at"]), ended=moment_or_none(row["ended_at"]))


class Attempts(Shape):
    items: list[AttemptShape]
    next: None = None


class AgentShape(Shape):
    node: str
    boot: str
    attempt: str
    first_seen: str
    last_seen: str
    last_seq: int
    skew_seconds: float | None = Field(description="the node's clock minus the collector's, as the fastest frame shows it")
    dropped: dict[str, int]

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> AgentShape:
        same = {key: row[key] for key in ("node", "boot", "attempt", "last_seq", "skew_seconds", "dropped")}
        return cls(**same, first_seen=moment(row["first_seen_at"]), last_seen=moment(row["last_seen_at"]))


class Agents(Shape):
    items: list[AgentShape]
    next: None = None


class EventShape(Shape):
    id: int
    event: str
    attempt: str
    node: str
    rank: int | None
    step: int | None
    time: str
    attrs: dict[str, Any]

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> EventShape:
        return cls(**{key: row[key] for key in ("id", "event", "attempt", "node", "rank", "step", "attrs")}, time=moment(row["at"]))


class EventPage(Shape):
    items: list[EventShape]
    next: str | None


class SeriesShape(Shape):
    """Columns of equal length. A value is a number, or "NaN", "Infinity", "-Infinity"; what was not logged is not there."""

    run: str
    metric: str
    rank: int | None
    agg: str | None
    thinned: bool = Field(description="true: of each bucket the lowest and the highest point")
    points: int = Field(description="how many there were before thinning")
    attempts: list[str]
    attempt: list[int] = Field(description="positions in `attempts`")
    step: list[int]
    time: list[float]
    value: list[float | int | str]


class RanksShape(Shape):
    run: str
    metric: str
    step: int | None
    attempt: str | None
    rank: list[int]
    node: list[str]
    value: list[float | int | str]


class IncidentShape(Shape):
    id: str
    run: str
    run_name: str
    project: str
    kind: str
    severity: str = Field(description="info, warning, critical")
    state: str = Field(description="open, acknowledged, resolved")
    scope: str
    attempt: str
    metric: str | None
    onset_step: int
    detected_step: int
    end_step: int | None
    ranks: list[int]
    nodes: list[str]
    summary: str
    cost: float | None = Field(description="wall time lost, seconds")
    causes: list[dict[str, Any]]
    evidence: dict[str, Any]
    parent: str | None
    silence: str | None = Field(description="the silence that hid it when it began: nobody is told of it")
    created: str
    updated: str
    acknowledged_by: str | None
    acknowledged: str | None
    resolved: str | None
    url: str

    @classmethod
    def of(cls, row: Mapping[Any, Any], settings: Settings) -> IncidentShape:
        keys = (
            "id",
            "run",
            "run_name",
            "project",
            "kind",
            "state",
            "scope",
            "attempt",
            "metric",
            "onset_step",
            "detected_step",
            "end_step",
        )
        same = {
            key: row[key]
            for key in (*keys, "ranks", "nodes", "summary", "causes", "evidence", "parent", "silence", "acknowledged_by", "severity")
        }
        return cls(
            **same,
            cost=row["cost_seconds"],
            created=moment(row["created_at"]),
            updated=moment(row["updated_at"]),
            acknowledged=moment_or_none(row["acknowledged_at"]),
            resolved=moment_or_none(row["resolved_at"]),
            url=f"{settings.url}/#/incidents/{row['id']}",
        )


class IncidentPage(Shape):
    items: list[IncidentShape]
    next: str | None


class ChangeShape(Shape):
    at: str
    change: str
    actor: str | None
    note: str | None
    severity: str | None

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> ChangeShape:
        return cls(at=moment(row["at"]), **{key: row[key] for key in ("change", "actor", "note", "severity")})


class IncidentDetail(IncidentShape):
    history: list[ChangeShape]
