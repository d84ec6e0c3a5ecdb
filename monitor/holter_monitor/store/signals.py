"""How the run's signals moved around an incident's onset: ranks from the step summaries; hosts and the ranks' processes from the sample store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa

from holter_monitor.diagnosis import Event, Signal
from holter_monitor.incidents import Incident
from holter_monitor.store.ports import Rows, SampleStore, Window
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
PROCESSES = ("process_cpu_wait_ratio", "process_io_wait_ratio")
MOST_RANKS = 512
"""Of a larger run, so many ranks evenly spread are looked at for what they wait for."""
HOSTS = ("host_disk_read_latency_seconds", "host_io_pressure_ratio", "host_cpu_ratio", "host_cpu_steal_ratio", "host_load_1m")
_FALLS = ("gpu_sm_clock_hertz",)
ROW = step_summaries.c
BATCHES = ("batch", "batches", "documents", "shards")
"""Events by which a loader tells what is in a step's batch."""
_IDENTITIES = ("batch_hash", "batch_id")
MOST_BATCHES = 50


def of_ranks(connection: sa.Connection, incident: Incident, *, is_everywhere: bool) -> dict[str, Signal]:
    """From the step summaries. Of an incident of few ranks the extreme over ranks is followed: the mean over thousands hides them."""
    onset = incident.episode_onset
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
    """From the sample store, on the incident's nodes (or all of them). What was sampled less than twice before the onset says nothing."""
    onset, found = incident.episode_onset, {}
    names = samples.nodes(incident.run)
    known = [name for name in samples.metrics(incident.run) if name.startswith(HOSTS)] if onset >= 0 else []
    metrics = sorted(known, key=lambda name: "." in name)[:MOST_HOST_SIGNALS]  # a node of many disks must not crowd out what it has one of
    for metric in metrics:
        rows, kept = _sampled(samples, incident, metric, _window(incident, step_seconds))
        if incident.nodes and rows.node.size:
            kept &= np.isin(rows.node, [number for number, name in names.items() if name in incident.nodes])
        calm, since = rows.value[kept & (rows.step < onset)], rows.value[kept & (rows.step >= onset)]
        if calm.size >= 2 and since.size >= 1:
            found[metric] = Signal(before=float(calm.mean()), since=float(since.mean()), peak=float(since.max()), lowest=float(since.min()))
    return found


def of_processes(samples: SampleStore, incident: Incident, world_size: int, *, step_seconds: float | None = None) -> dict[str, Signal]:
    """What the ranks' own processes waited for: of the incident's ranks (or all), the one whose waiting grew most. One rank that waits holds
    up all, so a mean over them would hide it."""
    onset = incident.episode_onset
    known = [name for name in samples.metrics(incident.run) if name in PROCESSES] if onset >= 0 else []
    ranks = incident.ranks[:MOST_RANKS] or (None if world_size <= MOST_RANKS else list(range(0, world_size, -(-world_size // MOST_RANKS))))
    found = {}
    for metric in known:
        rows, kept = _sampled(samples, incident, metric, _window(incident, step_seconds), ranks)
        moved = [
            Signal(
                before=float(calm.mean()),
                since=float(since.mean()),
                peak=float(since.max()),
                peak_rank=int(rank),
                lowest=float(since.min()),
            )
            for rank in np.unique(rows.rank[kept])
            if (calm := rows.value[kept & (rows.rank == rank) & (rows.step < onset)]).size >= 2
            and (since := rows.value[kept & (rows.rank == rank) & (rows.step >= onset)]).size
        ]
        if moved:
            found[metric] = max(moved, key=lambda signal: signal.since - signal.before)
    return found


def _window(incident: Incident, step_seconds: float | None) -> Window:
    """Samplers go by time: where steps are quick, more of them are looked at."""
    quick = 0 if not step_seconds else min(20_000, int(HOST_SECONDS / step_seconds))
    before, after = max(BEFORE, quick), max(AFTER, quick // 2)
    return Window(from_step=max(0, incident.episode_onset - before), to_step=max(incident.detected_step, incident.episode_onset + after))


def _sampled(
    samples: SampleStore, incident: Incident, metric: str, window: Window, ranks: Sequence[int] | None = None
) -> tuple[Rows, np.ndarray[Any, np.dtype[np.bool_]]]:
    """The rows of a sampled metric and which of them count: finite, and of the incident's attempt; the same steps of an older one had another fate."""
    rows = samples.ranks(incident.run, metric, window, ranks)
    kept = np.isfinite(np.asarray(rows.value, float))
    if incident.attempt:
        kept &= np.isin(rows.attempt, [number for number, name in samples.attempts(incident.run).items() if name == incident.attempt])
    return rows, kept


def events(connection: sa.Connection, incident: Incident) -> list[Event]:
    """What was declared or seen around the onset, and the checkpoints before it; oldest first."""
    row = run_events.c
    near = sa.or_(
        row.step.is_(None) & (row.at >= incident.created - 600),
        row.step.between(incident.episode_onset - 300, incident.episode_onset + AFTER),
    )
    saved = sa.and_(row.event == "checkpoint", row.step < incident.onset_step)
    wanted = [
        sa.select(row.event, row.step, row.rank, row.node, row.at, row.attrs)
        .where(row.run == incident.run, row.event.not_in(("fingerprint", "watch", "stacks", "flight_recorder", *BATCHES)), which)
        .order_by(row.id.desc())
        .limit(limit)
        for which, limit in ((near, 200), (saved, 20))
    ]
    found = {(e.event, e.step, e.rank, e.at): e for query in wanted for e in connection.execute(query)}
    return [
        Event(word=e.event, step=e.step, rank=e.rank, node=e.node, at=e.at, attrs=e.attrs)
        for e in sorted(found.values(), key=lambda e: e.at)
    ]


def batches(connection: sa.Connection, incident: Incident, first: int, last: int) -> list[Event]:
    """What is known of the batches of these steps, the first ones: the hash that `run.batches` takes or the id that the loop logs, and what
    `run.event("batch", step=…, documents=…)` told of them; one event a step and rank."""
    known: dict[tuple[int, int | None], dict[str, Any]] = {}
    query = (
        sa.select(ROW.metric, ROW.step, ROW.max_rank, ROW.max)
        .where(ROW.run == incident.run, ROW.metric.in_(_IDENTITIES), ROW.step.between(first, last), ROW.max.is_not(None))
        .order_by(ROW.step)
        .limit(MOST_BATCHES)
    )
    for metric, step, rank, value in connection.execute(query if not incident.attempt else query.where(ROW.attempt == incident.attempt)):
        known.setdefault((step, rank), {})[metric] = int(value)
    row = run_events.c
    told = sa.select(row.step, row.rank, row.attrs).where(row.run == incident.run, row.event.in_(BATCHES), row.step.between(first, last))
    for event in connection.execute(told.order_by(row.step, row.id).limit(MOST_BATCHES)):
        known.setdefault((event.step, event.rank), {}).update(event.attrs or {})
    ordered = sorted(known.items(), key=lambda item: (item[0][0], -1 if item[0][1] is None else item[0][1]))
    return [Event(word="batch", step=step, rank=rank, attrs=attrs) for (step, rank), attrs in ordered[:MOST_BATCHES]]
