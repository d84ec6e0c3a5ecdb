"""How the run's signals moved around an incident's onset: ranks from the step summaries, hosts from the sample store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import sqlalchemy as sa

from holter_monitor.diagnosis import Event, Signal
from holter_monitor.incidents import Incident
from holter_monitor.store.ports import SampleStore, Window
from holter_monitor.store.tables import run_events, step_summaries

BEFORE, LEADING, AFTER = 200, 10, 50
"""Steps: the calm before, the last ones before the onset (a precursor shows there), and the least that is looked at since."""
HOST_SECONDS = 120.0
"""… and of hosts, which are sampled every few seconds."""
MOST_HOST_SIGNALS = 16
"""A look at each costs a query."""
METRICS = (
    "loss grad_norm update_norm lr data_wait_seconds compute_seconds step_time_seconds process_gc_pause_seconds process_memory_rss_bytes "
    "process_memory_shared_bytes gpu_sm_clock_hertz gpu_temperature_celsius gpu_nvlink_errors_total gpu_pcie_replays_total "
    "section_communication_seconds section_all_reduce_seconds section_checkpoint_seconds"
)
HOSTS = ("host_disk_read_latency_seconds", "host_io_pressure_ratio", "host_cpu_ratio", "host_cpu_steal_ratio", "host_load_1m")
_FALLS = ("gpu_sm_clock_hertz",)
ROW = step_summaries.c


def of_ranks(connection: sa.Connection, incident: Incident, *, is_everywhere: bool) -> dict[str, Signal]:
    """From the step summaries. Of an incident of few ranks the extreme over ranks is followed: the mean over thousands hides them."""
    onset = incident.onset_step
    if onset < 0 or not incident.attempt:
        return {}
    bucket = sa.case((ROW.step < onset - LEADING, 0), (ROW.step < onset, 1), else_=2).label("bucket")
    query = (
        sa.select(
            ROW.metric,
            bucket,
            sa.func.avg(ROW.mean),
            sa.func.avg(ROW.max),
            sa.func.avg(ROW.min),
            sa.func.max(ROW.max),
            sa.func.min(ROW.min),
        )
        .where(ROW.run == incident.run, ROW.metric.in_(METRICS.split()), ROW.attempt == incident.attempt)
        .where(ROW.step.between(onset - BEFORE, max(incident.detected_step, incident.end_step or 0, onset + AFTER)))
        .group_by(ROW.metric, bucket)
    )
    found: dict[str, dict[int, Any]] = {}
    for metric, place, *numbers in connection.execute(query):
        if numbers[0] is not None:
            found.setdefault(metric, {})[place] = numbers
    return {metric: _signal(metric, places, is_everywhere) for metric, places in found.items() if 0 in places and 2 in places}


def _signal(metric: str, places: Mapping[int, Any], is_everywhere: bool) -> Signal:
    column = 0 if is_everywhere else (2 if metric in _FALLS else 1)
    leading = places[1][3] if 1 in places else None
    return Signal(before=places[0][column], since=places[2][column], peak=places[2][3], lowest=places[2][4], leading=leading)


def of_hosts(samples: SampleStore, incident: Incident, *, step_seconds: float | None = None) -> dict[str, Signal]:
    """From the sample store, on the incident's nodes (or all of them). What was sampled less than twice before the onset says nothing.
    Hosts are sampled by time: where steps are quick, more of them are looked at."""
    onset, found = incident.onset_step, {}
    quick = 0 if not step_seconds else min(20_000, int(HOST_SECONDS / step_seconds))
    before, after = max(BEFORE, quick), max(AFTER, quick // 2)
    window = Window(from_step=max(0, onset - before), to_step=max(incident.detected_step, onset + after))
    names = samples.nodes(incident.run)
    known = [name for name in samples.metrics(incident.run) if name.startswith(HOSTS)] if onset >= 0 else []
    metrics = sorted(known, key=lambda name: "." in name)[:MOST_HOST_SIGNALS]  # a node of many disks must not crowd out what it has one of
    for metric in metrics:
        rows = samples.ranks(incident.run, metric, window)
        value, early = np.asarray(rows.value, float), np.asarray(rows.step) < onset
        kept = np.isfinite(value)
        if incident.nodes and rows.node.size:
            kept &= np.isin(rows.node, [number for number, name in names.items() if name in incident.nodes])
        calm, since = value[kept & early], value[kept & ~early]
        if calm.size >= 2 and since.size >= 1:
            found[metric] = Signal(before=float(calm.mean()), since=float(since.mean()), peak=float(since.max()), lowest=float(since.min()))
    return found


def events(connection: sa.Connection, incident: Incident) -> list[Event]:
    """What was declared or seen around the onset, and the checkpoints before it; oldest first."""
    row = run_events.c
    near = sa.or_(
        row.step.is_(None) & (row.at >= incident.created - 600), row.step.between(incident.onset_step - 300, incident.onset_step + AFTER)
    )
    saved = sa.and_(row.event == "checkpoint", row.step < incident.onset_step)
    wanted = [
        sa.select(row.event, row.step, row.rank, row.node, row.at, row.attrs)
        .where(row.run == incident.run, row.event.not_in(("fingerprint", "watch")), which)
        .order_by(row.id.desc())
        .limit(limit)
        for which, limit in ((near, 200), (saved, 20))
    ]
    found = {(e.event, e.step, e.rank, e.at): e for query in wanted for e in connection.execute(query)}
    return [
        Event(word=e.event, step=e.step, rank=e.rank, node=e.node, at=e.at, attrs=e.attrs)
        for e in sorted(found.values(), key=lambda e: e.at)
    ]
