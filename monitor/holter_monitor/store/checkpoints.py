"""What the node agents told of a run's checkpoints."""

from __future__ import annotations

import sqlalchemy as sa

from holter_monitor.store.tables import run_events
from holter_monitor.stream.checkpoint_news import News, news

MAX_NEWS = 200


def told(connection: sa.Connection, run: str) -> list[News]:
    """The newest news of the place that was told of last, oldest first."""
    query = sa.select(run_events.c.event, run_events.c.at, run_events.c.attrs)
    query = query.where(run_events.c.run == run, run_events.c.event == "checkpoint_files").order_by(run_events.c.id.desc()).limit(MAX_NEWS)
    rows = connection.execute(query).mappings()
    read = [
        news({"event": row["event"], "rank": None, "step": None, "time_ns": int(row["at"] * 1e9), "attrs": row["attrs"]}) for row in rows
    ]
    found = [each for each in read if each is not None]
    return [each for each in reversed(found) if each.folder == found[0].folder]
