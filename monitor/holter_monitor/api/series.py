"""Series: a rank's values or an aggregate over ranks, at any zoom; all ranks at a step."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np
from fastapi import APIRouter, Query, Response

from holter_monitor import series as shapes
from holter_monitor.api.parts import Parts, TheCaller, TheParts, visible_run
from holter_monitor.api.shapes import RanksShape, SeriesShape
from holter_monitor.errors import Problem
from holter_monitor.store import summaries
from holter_monitor.store.ports import Window

router = APIRouter(prefix="/api/v1", tags=["series"])
MAX_POINTS = 100_000
WIDE = 8
"""Ranks from which an aggregate is read from the step summaries: they cost a row a step, the points a row a rank."""
Step = Annotated[int | None, Query(ge=-(2**62), le=2**62)]
Rank = Annotated[int | None, Query(ge=-1, le=2**31 - 1, description="-1: the node's own rows")]


Aggregate = Literal["mean", "min", "max", "median", "sum", "count"]


@router.get("/runs/{run}/series", response_model=SeriesShape)
def get_series(
    run: str,
    parts: TheParts,
    caller: TheCaller,
    *,
    metric: Annotated[str, Query(max_length=200, examples=["loss"])],
    rank: Rank = None,
    agg: Aggregate | None = None,
    from_step: Step = None,
    to_step: Step = None,
    attempt: Annotated[str | None, Query(max_length=200)] = None,
    max_points: Annotated[int, Query(ge=4, le=MAX_POINTS)] = 1_000,
) -> Response:
    """One rank's values, or (the default) the mean over the ranks of each step. Thinned to `max_points` without losing a spike."""
    if rank is not None and agg is not None:
        raise Problem(400, "One rank has no aggregate", field="agg", value=agg, remedy="give rank or agg, not both")
    with parts.control.read() as connection:
        world_size = visible_run(connection, run, caller)["world_size"]
    window = Window(from_step=from_step, to_step=to_step, attempt=attempt)
    how = None if rank is not None else agg or "mean"
    if how is None:
        total, found, names = _values(parts, run, metric, window, rank)
    else:
        total, found, names = _aggregate(parts, run, metric, window, how=how, is_wide=world_size > WIDE, max_points=max_points)
    thinned = shapes.thin(found, max_points)
    head = {"run": run, "metric": metric, "rank": rank, "agg": how, "thinned": len(thinned) < total, "points": total}
    return answer(head | shapes.document(thinned, names))


Found: TypeAlias = "tuple[int, shapes.Series, dict[int, str]]"
"""How many points there are, those of them that a thinned series is picked from, and the attempts' names."""


def _values(parts: Parts, run: str, metric: str, window: Window, rank: int | None) -> Found:
    rows = parts.samples.ranks(run, metric, window, None if rank is None else [rank])
    return len(rows.step), shapes.Series(rows.attempt, rows.step, rows.time_ns, rows.value), parts.samples.attempts(run)


def _aggregate(parts: Parts, run: str, metric: str, window: Window, *, how: str, is_wide: bool, max_points: int) -> Found:
    """Of many ranks from the summaries, which need no scan; else from the points themselves."""
    if is_wide:
        with parts.control.read() as connection:
            line, names = summaries.read(connection, run, metric, window, how, max_points=max_points)
        if line.total:
            return line.total, shapes.Series(line.attempt, line.step, line.time_ns, line.value), names
    if how != "count" and parts.samples.lone_rank(run):
        return _values(parts, run, metric, window, None)
    found = parts.samples.aggregate(run, metric, window, how=how)
    return len(found.step), shapes.Series(found.attempt, found.step, found.time_ns, found.value), parts.samples.attempts(run)


@router.get("/runs/{run}/ranks", response_model=RanksShape)
def get_ranks(
    run: str,
    parts: TheParts,
    caller: TheCaller,
    *,
    metric: Annotated[str, Query(max_length=200, examples=["step_time_seconds"])],
    step: Step = None,
    attempt: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Each rank's value at one step (the newest, if none is named); after a rewind, of the newest attempt that has it."""
    with parts.control.read() as connection:
        visible_run(connection, run, caller)
    if step is None:
        step = parts.samples.last_step(run, metric)
    empty: dict[str, Any] = {"run": run, "metric": metric, "step": step, "attempt": attempt, "rank": [], "node": [], "value": []}
    if step is None:
        return answer(empty)
    rows = parts.samples.ranks(run, metric, Window(from_step=step, to_step=step, attempt=attempt))
    if not len(rows.rank):
        return answer(empty)
    newest = rows.attempt == rows.attempt.max()
    order = np.flatnonzero(newest)[np.argsort(rows.rank[newest], kind="stable")]
    nodes = parts.samples.nodes(run)
    named = {"attempt": parts.samples.attempts(run).get(int(rows.attempt.max())), "rank": rows.rank[order].tolist()}
    filled = {"node": [nodes.get(number, "") for number in rows.node[order].tolist()], "value": shapes.numbers(rows.value[order])}
    return answer(empty | named | filled)


def answer(document: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(document), media_type="application/json")
