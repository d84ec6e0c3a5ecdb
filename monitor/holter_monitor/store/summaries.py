"""Step summaries, for reading: a metric over all ranks, one row a step, however many ranks there were."""

from __future__ import annotations

import numpy as np
import sqlalchemy as sa

from holter_monitor.store.ports import Aggregates, Window
from holter_monitor.store.tables import attempts, step_summaries

COLUMNS = ("mean", "min", "max", "median", "count")


def read(connection: sa.Connection, run: str, metric: str, window: Window, how: str) -> tuple[Aggregates, dict[int, str]]:
    """`how` (one of `COLUMNS`) of each step, by attempt and step, and the attempts' names by their number."""
    table = step_summaries
    query = sa.select(attempts.c.number, table.c.step, table.c.at, table.c[how].label("value"), table.c["count"].label("ranks"))
    query = query.join(attempts, sa.and_(attempts.c.run == table.c.run, attempts.c.attempt == table.c.attempt))
    query = query.where(table.c.run == run, table.c.metric == metric).order_by(attempts.c.number, table.c.step)
    if window.from_step is not None:
        query = query.where(table.c.step >= window.from_step)
    if window.to_step is not None:
        query = query.where(table.c.step <= window.to_step)
    if window.attempt is not None:
        query = query.where(table.c.attempt == window.attempt)
    rows = connection.execute(query).all()
    named = connection.execute(sa.select(attempts.c.number, attempts.c.attempt).where(attempts.c.run == run))
    numbers = np.array([row.number for row in rows], np.int32)
    found = Aggregates(
        attempt=numbers,
        step=np.array([row.step for row in rows], np.int64),
        group=np.zeros(len(rows), np.int32),
        time_ns=(np.array([row.at for row in rows], np.float64) * 1e9).astype(np.int64),
        value=np.array([np.nan if row.value is None else row.value for row in rows], np.float64),
        count=np.array([row.ranks for row in rows], np.int64),
    )
    return found, dict(named.tuples().all())
