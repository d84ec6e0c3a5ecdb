"""Step summaries, for reading: a metric over all ranks, one row a step, however many ranks there were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa

from holter_monitor.store.ports import Aggregates, Window
from holter_monitor.store.rollups import Source
from holter_monitor.store.tables import attempts, step_summaries

COLUMNS = ("mean", "min", "max", "median", "count")


def read(connection: sa.Connection, run: str, metric: str, window: Window, how: str) -> tuple[Aggregates, dict[int, str]]:
    """`how` (one of `COLUMNS`) of each step, by attempt and step, and the attempts' names by their number."""
    named = connection.execute(
        sa.select(attempts.c.number, attempts.c.attempt).where(attempts.c.run == run).order_by(attempts.c.number)
    ).all()
    pieces = [
        (number, _attempt(connection, Source(run, metric, attempt), window, how))
        for number, attempt in named
        if window.attempt in (None, attempt)
    ]
    numbers = np.concatenate([np.zeros(0, np.int32), *(np.full(len(rows), number, np.int32) for number, rows in pieces)])
    columns = list(zip(*(row for _, rows in pieces for row in rows), strict=True)) or [()] * 4
    step, at, value, ranks = (
        np.array(column, kind) for column, kind in zip(columns, (np.int64, np.float64, np.float64, np.int64), strict=True)
    )
    group = np.zeros(len(numbers), np.int32)
    found = Aggregates(attempt=numbers, step=step, group=group, time_ns=(at * 1e9).astype(np.int64), value=value, count=ranks)
    return found, dict(row._tuple() for row in named)


def _attempt(connection: sa.Connection, source: Source, window: Window, how: str) -> Sequence[Any]:
    """In the order of the key, so that no row outside the window is touched and nothing is sorted."""
    table = step_summaries.c
    query = sa.select(table.step, table.at, table[how], table["count"]).where(*source.of(table)).order_by(table.step)
    if window.from_step is not None:
        query = query.where(table.step >= window.from_step)
    if window.to_step is not None:
        query = query.where(table.step <= window.to_step)
    return connection.execute(query).all()
