"""Reads what `holter_monitor.goodput` divides: a run's attempts with their steps' times, declared pauses, and what stragglers cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import sqlalchemy as sa

from holter_monitor.goodput import Array, Life
from holter_monitor.store import curves, rollups
from holter_monitor.store.rollups import DATA_WAIT, STEP_TIME, Source
from holter_monitor.store.tables import agents, attempts, incidents, run_events, runs

PAUSES = {"checkpoint": "checkpoints", "eval": "evaluations"}
DRAGGING = ("straggler", "gpu_throttle")
"""Kinds of incident that say by how much slow ranks held up the others."""
LIVE_SECONDS = 60.0
"""An attempt whose steps' clock and the collector's agree within this was recorded as it happened; what was replayed or spooled was not."""


def lives(connection: sa.Connection, run: str) -> list[Life]:
    """The attempts that have a timed step, in their order; empty for a run that has none yet."""
    counted: dict[str, list[tuple[int, int]]] = {}
    for stretch in curves.stretches(connection, run, None, None):
        counted.setdefault(stretch.attempt, []).append((stretch.first, stretch.last))
    updated = connection.scalar(sa.select(runs.c.updated_at).where(runs.c.id == run)) or 0.0
    rows = connection.execute(sa.select(attempts).where(attempts.c.run == run).order_by(attempts.c.number)).mappings().all()
    found = []
    for row in rows:
        newest = updated if row is rows[-1] and row["ended_at"] is None else None
        life = None if row["first_step"] is None else _life(connection, row, counted.get(row["attempt"], []), heard=newest)
        if life is not None:
            found.append(life)
    return found


def _life(connection: sa.Connection, row: sa.RowMapping, counted: list[tuple[int, int]], *, heard: float | None) -> Life | None:
    run, attempt, first, last = row["run"], row["attempt"], row["first_step"], row["last_step"]
    step, seconds, finish = rollups.clocked(connection, Source(run, STEP_TIME, attempt), first, last)
    if not len(step):
        return None
    trouble = _trouble(connection, run, attempt)
    witnessed = _witnessed(connection, run, attempt)
    steady = None if witnessed is None else steadied(step, seconds, finish, witnessed)
    if steady is None or witnessed is None:
        start = _start(connection, row, float(finish[0] - seconds[0]))
        end = _end(row, began=float(finish[0] - seconds[0]), last=float(finish.max()), heard=heard)
    else:
        finish = steady
        start, end = min(witnessed[0], float(finish[0] - seconds[0])), max(witnessed[1], float(finish[-1]))
    return Life(
        attempt=attempt,
        start=start,
        end=end,
        state=row["state"],
        ranks=row["world_size"],
        is_hung=any(incident.kind == "hang" for incident in trouble),
        step=step,
        finish=finish,
        seconds=seconds,
        waited=_waited(connection, run, attempt, step),
        counted=sum((((step >= low) & (step <= high)) for low, high in counted), np.zeros(len(step), bool)),
        planned=_planned(connection, run, attempt, step),
        dragged=_dragged(trouble, step),
    )


def steadied(step: Array, seconds: Array, finish: Array, witnessed: tuple[float, float]) -> Array | None:
    """When each step ended by the collector's clock, for an attempt whose own clock was set while it ran; None for any other.

    A step that takes a second by the clock that nobody can set, and an hour by the one that they can, tells of such a day; so does a machine that was
    suspended, and then the collector has waited for the hour as well.
    """
    beyond = np.where(np.diff(step) == 1, np.diff(finish) - seconds[1:], 0.0)
    leaps = np.where(np.abs(beyond) > LIVE_SECONDS, beyond, 0.0)
    span, truth = float(finish[-1] - finish[0]), witnessed[1] - witnessed[0]
    is_replayed = truth < 0.5 * float(seconds.sum())
    if not leaps.any() or is_replayed or abs(span - leaps.sum() - truth) >= abs(span - truth):
        return None
    even = finish - np.concatenate([[0.0], np.cumsum(leaps)])
    return np.asarray(even + witnessed[1] - even[-1])


def _witnessed(connection: sa.Connection, run: str, attempt: str) -> tuple[float, float] | None:
    """The first and the last word that the collector heard of the attempt, by its own clock."""
    query = sa.select(sa.func.min(agents.c.first_seen_at), sa.func.max(agents.c.last_seen_at))
    first, last = connection.execute(query.where(agents.c.run == run, agents.c.attempt == attempt)).one()
    return None if first is None else (float(first), float(last))


def _start(connection: sa.Connection, row: sa.RowMapping, began: float) -> float:
    """When the first rank started, by its own node's clock where it said so; before the first step in any case."""
    said = sa.select(sa.func.min(run_events.c.at)).where(
        run_events.c.run == row["run"], run_events.c.attempt == row["attempt"], run_events.c.event == "rank_started"
    )
    started = connection.scalar(said)
    return float(min(began, row["started_at"] if started is None else started))


def _end(row: sa.RowMapping, *, began: float, last: float, heard: float | None) -> float:
    """The attempt's end as it was told, or the newest word of one that goes on; its last step where the clocks do not agree."""
    if row["ended_at"] is not None:
        return float(max(last, row["ended_at"]))
    is_live = heard is not None and row["started_at"] - LIVE_SECONDS <= began and last <= heard + LIVE_SECONDS
    return max(last, heard) if is_live and heard is not None else last


def _waited(connection: sa.Connection, run: str, attempt: str, step: Array) -> Array:
    known, seconds = rollups.durations(connection, Source(run, DATA_WAIT, attempt), int(step[0]), int(step[-1]))
    waited = np.zeros(len(step))
    if len(known):
        at = np.minimum(np.searchsorted(known, step), len(known) - 1)
        waited = np.where(known[at] == step, seconds[at], 0.0)
    return np.maximum(waited, 0.0)


def _planned(connection: sa.Connection, run: str, attempt: str, step: Array) -> dict[str, Array]:
    """A pause declared at a step lies before or after its end: in its own time or in the next one's."""
    query = sa.select(run_events.c.event, run_events.c.step, run_events.c.attrs).where(
        run_events.c.run == run, run_events.c.attempt == attempt, run_events.c.event.in_(PAUSES), run_events.c.step.is_not(None)
    )
    told: dict[tuple[str, int], float] = {}
    for event, at, attrs in connection.execute(query):
        told[event, at] = max(told.get((event, at), 0.0), _seconds(attrs))
    planned = {cause: np.zeros(len(step)) for cause in PAUSES.values()}
    for (event, at), seconds in told.items():
        first = int(np.searchsorted(step, at))
        planned[PAUSES[event]][first : first + 2] = seconds or np.inf
    return planned


def _seconds(attrs: Mapping[str, Any]) -> float:
    said = attrs.get("seconds")
    return float(said) if isinstance(said, int | float) and 0 < said < 1e9 else 0.0


def _trouble(connection: sa.Connection, run: str, attempt: str) -> list[Any]:
    columns = (incidents.c.kind, incidents.c.onset_step, incidents.c.end_step, incidents.c.cost_seconds)
    wanted = incidents.c.kind.in_((*DRAGGING, "hang"))
    return list(
        connection.execute(
            sa.select(*columns).where(incidents.c.run == run, incidents.c.attempt == attempt, wanted, incidents.c.parent.is_(None))
        ).all()
    )


def _dragged(trouble: list[Any], step: Array) -> Array:
    """Each incident's cost, spread over its steps. Two that say the same of one step are not added: the dearer one counts."""
    dragged = np.zeros(len(step))
    for incident in trouble:
        if incident.kind in DRAGGING and incident.cost_seconds:
            until = step[-1] if incident.end_step is None else incident.end_step
            held = (step >= incident.onset_step) & (step <= until)
            if held.any():
                dragged[held] = np.maximum(dragged[held], incident.cost_seconds / held.sum())
    return dragged
