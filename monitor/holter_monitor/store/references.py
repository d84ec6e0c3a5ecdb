"""A run's step summaries and evaluations, read as the reference that another run is held against."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from holter_monitor import reference
from holter_monitor.reference import Pacing, Reference
from holter_monitor.runs import Run
from holter_monitor.store.control import Control
from holter_monitor.store.tables import run_events, runs, step_summaries

ROW = step_summaries.c
_WATCHES = 256
"""Newest `watch` events that are looked at for dtypes: one of each group of replicas carries a table."""
Axis = dict[int, float]


class References:
    """What `Run.reference` names, by name or id within the run's project; None where it names nothing that is long enough."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def of(self, run: Run) -> Reference | None:
        if not run.reference:
            return None
        with self._control.read() as connection:
            named = sa.or_(runs.c.id == run.reference, runs.c.name == run.reference)
            found = connection.execute(sa.select(runs.c.id, runs.c.name).where(runs.c.project == run.project, named)).first()
            return None if found is None or found.id == run.id else _read(connection, found.id, found.name)


def _read(connection: sa.Connection, run: str, name: str) -> Reference | None:
    losses = _by_step(connection, run, "loss", ROW.mean)
    consumed = _by_step(connection, run, "consumed_tokens", ROW.mean) or _added_up(
        _by_step(connection, run, "tokens", ROW.mean * ROW.count)
    )
    unit = "tokens" if consumed else "step"
    axis = consumed or {step: float(step) for step in losses}
    steps = [step for step in losses if step in axis]
    at: NDArray[np.float64] = np.array([axis[step] for step in steps])
    loss: NDArray[np.float64] = np.array([losses[step] for step in steps])
    evaluations = _evaluations(connection, run, axis)
    return reference.build(
        name, at, loss, unit=unit, evaluations=evaluations, pacing=_pacing(connection, run), precision=_precision(connection, run)
    )


def _pacing(connection: sa.Connection, run: str) -> Pacing | None:
    for basis in reference.PACES:
        logged = _by_step(connection, run, basis, ROW.mean)
        if logged:
            return reference.pacing(basis, list(logged), list(logged.values()))
    return None


def _precision(connection: sa.Connection, run: str) -> dict[str, str]:
    """What the run's newest layouts say; a pipeline's stages each tell their own."""
    query = (
        sa.select(run_events.c.attrs)
        .where(run_events.c.run == run, run_events.c.event == "watch")
        .order_by(run_events.c.id.desc())
        .limit(_WATCHES)
    )
    found: dict[str, str] = {}
    for attrs in connection.scalars(query):
        if isinstance(attrs.get("table"), dict):
            with suppress(ValueError):  # what is no table was said where it came in
                for family, (dtype, _) in reference.dtypes(attrs["table"]).items():
                    found.setdefault(family, dtype)
    return found


def _by_step(connection: sa.Connection, run: str, metric: str, value: sa.ColumnElement[Any]) -> Axis:
    """Step → value, ascending; where attempts repeat a step the newest counts."""
    query = sa.select(ROW.step, value).where(ROW.run == run, ROW.metric == metric, ROW.mean.is_not(None)).order_by(ROW.step, ROW.at)
    return {step: float(found) for step, found in connection.execute(query)}


def _added_up(tokens: Axis) -> Axis:
    return dict(zip(tokens, np.cumsum(list(tokens.values())).tolist(), strict=True))


def _evaluations(connection: sa.Connection, run: str, axis: Axis) -> list[tuple[str, float, float]]:
    query = sa.select(run_events.c.step, run_events.c.attrs).where(run_events.c.run == run, run_events.c.event == "eval")
    found: list[tuple[str, float, float]] = []
    for step, attrs in connection.execute(query.order_by(run_events.c.id)):
        metrics = attrs.get("metrics") or {}
        if step in axis:
            found += [(name, axis[step], float(value)) for name, value in metrics.items() if isinstance(value, int | float)]
    return found
