"""Series by group of ranks (node, or a dimension of the mesh), and series of several runs on one axis."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query, Response
from numpy.typing import NDArray
from pydantic import Field

from holter_monitor import series as shapes
from holter_monitor.api.parts import Parts, TheCaller, TheParts, visible_run
from holter_monitor.api.series import Aggregate, answer
from holter_monitor.api.shapes import Shape
from holter_monitor.errors import Problem
from holter_monitor.store import runs
from holter_monitor.store.ports import Window

router = APIRouter(prefix="/api/v1", tags=["series"])
MAX_GROUPS = 512
MAX_RUNS = 20
Step = Annotated[int | None, Query(ge=-(2**62), le=2**62)]
Metric = Annotated[str, Query(max_length=200, examples=["loss"])]
Points = Annotated[int, Query(ge=4, le=10_000)]


class GroupShape(Shape):
    group: str = Field(description="the node's name, or the coordinate")
    attempts: list[str]
    attempt: list[int]
    step: list[int]
    time: list[float]
    value: list[float | int | str]


class GroupsShape(Shape):
    run: str
    metric: str
    agg: str
    by: str
    groups: list[GroupShape]


class AlignedShape(Shape):
    run: str
    name: str
    x: list[float]
    step: list[int]
    value: list[float | int | str]


class CompareShape(Shape):
    metric: str
    agg: str
    align: str
    runs: list[AlignedShape]


@router.get("/runs/{run}/groups", response_model=GroupsShape)
def get_groups(
    run: str,
    parts: TheParts,
    caller: TheCaller,
    *,
    metric: Metric,
    by: Annotated[str, Query(max_length=40, examples=["node"], description="node, or a dimension of the mesh: dp, tp, pp, cp, ep")],
    agg: Aggregate = "mean",
    from_step: Step = None,
    to_step: Step = None,
    max_points: Points = 500,
) -> Response:
    """The metric over the ranks of each group: a slow node, or a pipeline stage that waits, stands out."""
    with parts.control.read() as connection:
        visible_run(connection, run, caller)
        attempts = runs.attempts_of(connection, run)
    places: dict[str, dict[str, Any]] = {}
    for attempt in attempts:
        places |= attempt["mesh"]
    named = {int(rank): str(place[by]) for rank, place in places.items() if place.get(by) is not None}
    if not named:
        raise Problem(
            404,
            "No such dimension",
            field="by",
            value=by,
            remedy="holter.init(mesh={…}) names the dimensions of a run; node is always there",
        )
    names = sorted(set(named.values()), key=lambda name: (len(name), name))
    if len(names) > MAX_GROUPS:
        raise Problem(400, "Too many groups", field="by", value=f"{len(names)} of {by}", remedy=f"at most {MAX_GROUPS}")
    numbers = {name: number for number, name in enumerate(names)}
    window = Window(from_step=from_step, to_step=to_step)
    found = parts.samples.aggregate(run, metric, window, how=agg, groups={rank: numbers[name] for rank, name in named.items()})
    known = parts.samples.attempts(run)
    groups = []
    for number, name in enumerate(names):
        mine = np.flatnonzero(found.group == number)
        series = shapes.Series(found.attempt[mine], found.step[mine], found.time_ns[mine], found.value[mine])
        groups.append({"group": name} | shapes.document(shapes.thin(series, max_points), known))
    return answer({"run": run, "metric": metric, "agg": agg, "by": by, "groups": groups})


@router.get("/compare", response_model=CompareShape)
def compare(
    parts: TheParts,
    caller: TheCaller,
    *,
    run: Annotated[list[str], Query(min_length=1, max_length=MAX_RUNS)],
    metric: Metric,
    agg: Aggregate = "mean",
    align: Literal["step", "tokens", "time"] = "step",
    max_points: Points = 1_000,
) -> Response:
    """Several runs on one axis: by step, by tokens seen (the sum over ranks, added up), or by seconds since the run's first point."""
    with parts.control.read() as connection:
        rows = [visible_run(connection, each, caller) for each in run]
    documents = []
    for row in rows:
        found = parts.samples.aggregate(row["id"], metric, Window(), how=agg)
        series = shapes.Series(found.attempt, found.step, found.time_ns, found.value)
        axis = _axis(parts, row["id"], series, align)
        kept = shapes.thin(shapes.Series(np.arange(len(series)), series.step, series.time_ns, series.value), max_points)
        facts = {"run": row["id"], "name": f"{row['project']}/{row['name']}", "x": axis[kept.attempt].tolist()}
        documents.append(facts | {"step": kept.step.tolist(), "value": shapes.numbers(kept.value)})
    return answer({"metric": metric, "agg": agg, "align": align, "runs": documents})


def _axis(parts: Parts, run: str, series: shapes.Series, align: str) -> NDArray[Any]:
    """Where each point of the series stands on the axis, as float64."""
    if align == "step" or not len(series):
        return series.step.astype(np.float64)
    if align == "time":
        seconds: NDArray[Any] = (series.time_ns - series.time_ns.min()) / 1e9
        return seconds
    tokens = parts.samples.aggregate(run, "tokens", Window(), how="sum")
    if not len(tokens.step):
        raise Problem(
            404, "The run logs no tokens", field="align", value="tokens", remedy="run.step(…, tokens=n), or align by step or time"
        )
    order = np.lexsort((tokens.step, tokens.attempt))
    seen = np.cumsum(np.nan_to_num(tokens.value[order]))
    keys = tokens.attempt[order].astype(np.float64) * 2.0**40 + tokens.step[order]
    at = np.searchsorted(keys, series.attempt.astype(np.float64) * 2.0**40 + series.step, side="right") - 1
    axis: NDArray[Any] = np.where(at >= 0, seen[np.maximum(at, 0)], 0.0)
    return axis
