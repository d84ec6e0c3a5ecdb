"""What can only be said at the moment of a scrape: lags, sizes, runs, incidents, the outbox."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import sqlalchemy as sa
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from holter_monitor.api.health import check
from holter_monitor.api.parts import Parts
from holter_monitor.errors import Unavailable
from holter_monitor.store.salvage import DAMAGED
from holter_monitor.store.tables import agents, incidents, outbox, runs

RUNS = 200
"""Runs that have gauges of their own: the newest. Cardinality stays bounded whatever the number of runs."""
STORES = {"log": "frames.sqlite*", "samples": "samples.duckdb*", "control": "control.sqlite*"}


class Flow(Collector):
    """The log, its consumers, the receivers, the disk: no query."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        parts = self._parts
        yield gauge("holter_log_offset", "Newest offset of the frame log.", parts.log.last_offset())
        frames = GaugeMetricFamily("holter_consumer_lag_frames", "Entries that the consumer has still to do.", labels=["consumer"])
        seconds = GaugeMetricFamily("holter_consumer_lag_seconds", "Age of the oldest of them.", labels=["consumer"])
        for consumer in parts.consumers:
            frames.add_metric([consumer.name], max(0, parts.log.last_offset() - consumer.offset))
            oldest = consumer.oldest_waiting
            seconds.add_metric([consumer.name], 0.0 if oldest is None else max(0.0, parts.clock() - oldest))
        yield from (frames, seconds)
        deliveries = CounterMetricFamily("holter_deliveries", "Deliveries by receiver and outcome.", labels=["receiver", "outcome"])
        for worker in parts.dispatch.deliveries.workers:
            for outcome in ("sent", "failed", "refused"):
                deliveries.add_metric([worker.receiver, outcome], getattr(worker.counts, outcome))
        yield deliveries
        yield from self._disk(parts.settings.data)

    @staticmethod
    def _disk(data: Path) -> Iterator[Metric]:
        sizes = GaugeMetricFamily("holter_store_bytes", "Size on disk.", labels=["store"])
        for store, pattern in STORES.items():
            sizes.add_metric([store], sum(path.stat().st_size for path in data.glob(pattern)))
        yield sizes
        yield gauge("holter_damaged_files", "Set aside at a start, or by `holter salvage`; still there.", damaged(data))
        yield gauge("holter_disk_free_bytes", "Of the folder that holds the stores.", shutil.disk_usage(data).free)


class Health(Collector):
    """What `/readyz` says, for who pages by metrics."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("holter_part_ok", "1 for each part that can do its work, as /readyz says.", labels=["part"])
        for part, state in check(self._parts).items():
            family.add_metric([part], state == "ok")
        yield family


def damaged(data: Path) -> int:
    return sum(not path.name.endswith(("-wal", "-shm", ".wal")) for path in data.glob(f"*{DAMAGED}*"))


class Content(Collector):
    """Runs, incidents, the outbox: a few small queries. While the control store is away they are missing, and all else is still told."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        try:
            with self._parts.control.read() as connection:
                found = [metric for question in QUESTIONS for metric in question(connection, self._parts.clock())]
        except Unavailable:
            return
        yield from found


def gauge(name: str, words: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, words)
    family.add_metric([], value)
    return family


def _states(connection: sa.Connection, now: float) -> Iterator[Metric]:
    family = GaugeMetricFamily("holter_runs", "Runs by state.", labels=["state"])
    for state, count in connection.execute(sa.select(runs.c.state, sa.func.count()).group_by(runs.c.state)):
        family.add_metric([state], count)
    yield family


def _newest(connection: sa.Connection, now: float) -> Iterator[Metric]:
    steps = GaugeMetricFamily("holter_run_last_step", "The last step that a run reached.", labels=["project", "run"])
    times = GaugeMetricFamily("holter_run_last_frame_timestamp_seconds", "When a run was last heard of.", labels=["project", "run"])
    alive = runs.c.state.in_(("running", "silent"))  # a finished run that says nothing is no alarm
    query = sa.select(runs.c.project, runs.c.name, runs.c.last_step, runs.c.updated_at).where(alive)
    query = query.order_by(runs.c.updated_at.desc()).limit(RUNS)
    for project, name, step, updated in connection.execute(query):
        times.add_metric([project, name], updated)
        if step is not None:
            steps.add_metric([project, name], step)
    yield from (steps, times)


def _troubles(connection: sa.Connection, now: float) -> Iterator[Metric]:
    labels = ["project", "run", "kind", "severity", "state"]
    family = GaugeMetricFamily("holter_incidents", "Incidents that are not resolved.", labels=labels)
    columns = (incidents.c.project, runs.c.name, incidents.c.kind, incidents.c.severity, incidents.c.state)
    query = sa.select(*columns, sa.func.count()).join(runs, runs.c.id == incidents.c.run).where(incidents.c.state != "resolved")
    for *values, count in connection.execute(query.group_by(*columns).limit(RUNS * 10)):
        family.add_metric([str(value) for value in values], count)
    yield family


def _waiting(connection: sa.Connection, now: float) -> Iterator[Metric]:
    family = GaugeMetricFamily("holter_outbox_notices", "Notices by status.", labels=["status"])
    counts: dict[str, int] = dict(connection.execute(sa.select(outbox.c.status, sa.func.count()).group_by(outbox.c.status)).tuples().all())
    for status in ("ready", "leased", "dead"):
        family.add_metric([status], counts.get(status, 0))
    yield family
    query = sa.select(sa.func.min(outbox.c.next_at)).where(outbox.c.status == "ready", outbox.c.next_at <= now)
    oldest = connection.scalar(query)
    yield gauge(
        "holter_outbox_oldest_seconds", "How long the oldest notice that is due has waited.", 0.0 if oldest is None else now - oldest
    )


def _dropped(connection: sa.Connection, now: float) -> Iterator[Metric]:
    """Each life of an agent reports its own sums; over all lives they only grow."""
    family = CounterMetricFamily("holter_points_dropped", "Points dropped, by reason, as agents report them.", labels=["reason"])
    counts: Counter[str] = Counter()
    for dropped in connection.execute(sa.select(agents.c.dropped).where(sa.cast(agents.c.dropped, sa.Text) != "{}")).scalars():
        counts.update(dropped)
    for reason, count in counts.items():
        family.add_metric([reason], count)
    yield family


QUESTIONS: tuple[Callable[[sa.Connection, float], Iterator[Metric]], ...] = (_states, _newest, _troubles, _waiting, _dropped)
