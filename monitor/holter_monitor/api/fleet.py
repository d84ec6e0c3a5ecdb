"""`GET /goodput`: where the GPU time of all runs went, what broke and what it cost."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Query
from pydantic import Field

from holter_monitor.api.goodput import Reliability, rates
from holter_monitor.api.parts import TheCaller, TheParts
from holter_monitor.api.shapes import Shape, moment
from holter_monitor.errors import Problem
from holter_monitor.goodput import CAUSES
from holter_monitor.store import fleet
from holter_monitor.store.tally import HOUR

router = APIRouter(prefix="/api/v1", tags=["runs"])
DAYS = 7.0
FURTHEST = 4e9


class GpuHours(Shape):
    """Hours of GPUs (of ranks), by cause: they add up to `wall`."""

    wall: float
    productive: float = Field(description="effective training time")
    startup: float
    data: float
    stragglers: float
    checkpoints: float
    evaluations: float
    stalls: float
    recomputed: float
    down: float = Field(description="between attempts, at the size of the next one")
    other: float


class Share(Reliability):
    goodput: float | None = Field(description="productive over wall, weighed by GPUs")
    gpu_hours: GpuHours
    lost_money: float | None = Field(description="what was not productive, at `gpu_hour_price`")


class ProjectShare(Share):
    project: str
    runs: int


class RunShare(Share):
    run: str
    project: str
    name: str
    state: str
    world_size: int


class CostShape(Shape):
    """An incident's own cost, and that of the break that it tells or explains."""

    id: str
    run: str
    run_name: str
    project: str
    kind: str
    severity: str
    state: str
    onset_step: int
    summary: str
    cost_seconds: float
    gpu_hours: float
    money: float | None


class FleetShape(Share):
    since: str = Field(description="begin of the window; it holds whole hours")
    until: str
    runs: int
    projects: list[ProjectShare]
    items: list[RunShare] = Field(description="the runs that lived in the window, largest loss first")
    incidents: list[CostShape] = Field(description="the dearest 100 opened in the window")
    next: None = None


Moment = Annotated[dt.datetime | None, Query()]


@router.get("/goodput", response_model=FleetShape)
def get_fleet(
    parts: TheParts,
    caller: TheCaller,
    *,
    since: Annotated[Moment, Query(description="RFC 3339; seven days ago if nothing is said")] = None,
    until: Annotated[Moment, Query(description="RFC 3339; now if nothing is said")] = None,
    project: Annotated[str | None, Query(max_length=200)] = None,
    gpu_hour_price: Annotated[float | None, Query(ge=0, le=1e6, description="prices what was lost, in whatever currency you think")] = None,
) -> FleetShape:
    """All runs together, each project and each run, in a window of whole hours. Written behind the runs, some ten seconds late."""
    window = _window(since, until, parts.clock(), project=project, projects=caller.projects)
    with parts.control.read() as connection:
        spent = fleet.spent(connection, window)
        rows = fleet.named(connection, list(spent))
        ended = fleet.broken(connection, window)
        dear = fleet.costs(connection, window, ended)
    shares = [_run(row, spent[row["id"]], _of(ended, {row["id"]}), gpu_hour_price) for row in rows]
    shares.sort(key=lambda share: -(share.gpu_hours.wall - share.gpu_hours.productive))
    return FleetShape(
        since=moment(window.since),
        until=moment(window.until),
        runs=len(rows),
        **_share(spent.values(), ended, gpu_hour_price),
        projects=_projects(rows, spent, ended, gpu_hour_price),
        items=shares,
        incidents=[_cost(row, gpu_hour_price) for row in dear],
    )


def _window(
    since: dt.datetime | None, until: dt.datetime | None, now: float, *, project: str | None, projects: Sequence[str] | None
) -> fleet.Window:
    """The whole hours that the wanted time touches. Raises `Problem`."""
    last = now if until is None else _unix(until)
    first = last - DAYS * 86_400 if since is None else _unix(since)
    if not 0 <= first < last <= FURTHEST:
        raise Problem(422, "No such window", field="since", value=str(since), remedy="name a `since` that lies before `until`")
    return fleet.Window(since=first // HOUR * HOUR, until=-(-last // HOUR) * HOUR, project=project, projects=projects)


def _unix(said: dt.datetime) -> float:
    return (said if said.tzinfo else said.replace(tzinfo=dt.timezone.utc)).timestamp()


def _of(ended: Sequence[sa.RowMapping], ids: set[str]) -> list[sa.RowMapping]:
    return [row for row in ended if row["run"] in ids]


def _projects(
    rows: Sequence[sa.RowMapping], spent: Mapping[str, Any], ended: Sequence[sa.RowMapping], price: float | None
) -> list[ProjectShare]:
    members: dict[str, set[str]] = {}
    for row in rows:
        members.setdefault(row["project"], set()).add(row["id"])
    found = [
        ProjectShare(project=project, runs=len(ids), **_share([spent[run] for run in ids], _of(ended, ids), price))
        for project, ids in members.items()
    ]
    return sorted(found, key=lambda share: -(share.gpu_hours.wall - share.gpu_hours.productive))


def _run(row: sa.RowMapping, spent: Mapping[str, tuple[float, float]], ended: Sequence[sa.RowMapping], price: float | None) -> RunShare:
    facts = {name: row[name] for name in ("project", "name", "state", "world_size")}
    return RunShare(run=row["id"], **facts, **_share([spent], ended, price))


def _share(spent: Iterable[Mapping[str, tuple[float, float]]], ended: Sequence[sa.RowMapping], price: float | None) -> dict[str, Any]:
    """The fields of `Share`."""
    hours, lived = dict.fromkeys(CAUSES, 0.0), 0.0
    for one in spent:
        for cause, (seconds, rank_seconds) in one.items():
            hours[cause] += rank_seconds / HOUR
            lived += seconds if cause != "down" else 0.0
    wall = sum(hours.values())
    back = [None if row["down_seconds"] is None else row["down_seconds"] + row["startup_seconds"] for row in ended]
    return {
        "goodput": min(1.0, hours["productive"] / wall) if wall else None,
        "gpu_hours": GpuHours(wall=wall, **hours),
        "lost_money": None if price is None else (wall - hours["productive"]) * price,
        **rates(back, lived),
    }


def _cost(row: Mapping[str, Any], price: float | None) -> CostShape:
    hours = row["cost_seconds"] * row["world_size"] / HOUR
    shown = {name: row[name] for name in CostShape.model_fields if name in row}
    return CostShape(**shown, gpu_hours=hours, money=None if price is None else hours * price)
