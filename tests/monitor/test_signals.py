"""From stored step summaries and events to a diagnosis in the incident that Alerting writes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import sqlalchemy as sa
from holter.frame import NODE_RANK, Column, Frame, encode
from holter_monitor.alerting.alerting import Alerting
from holter_monitor.alerting.policies import Policy
from holter_monitor.findings import Finding, Severity
from holter_monitor.incidents import Incident
from holter_monitor.store import signals
from holter_monitor.store.ports import Entry
from holter_monitor.store.queries_duckdb import DuckDbQueries
from holter_monitor.store.tables import incidents, metadata, outbox, run_events, runs, step_summaries

RUN = SimpleNamespace(id="run1", project="smol", name="3b", world_size=8)


def summary(metric: str, step: int, mean: float, highest: float | None = None) -> dict[str, Any]:
    top = mean if highest is None else highest
    facts = {"run": "run1", "metric": metric, "attempt": "a1", "step": step, "at": float(step), "count": 8}
    return facts | {"mean": mean, "min": mean, "max": top, "median": mean, "min_rank": 0, "max_rank": 3, "non_finite": 0}


def test_the_signals_around_the_onset_name_the_cause_and_reach_the_message(tmp_path: Any) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/control.db")
    metadata.create_all(engine)
    rows = [summary("lr", step, 3e-4 if step < 990 else 3e-3) for step in range(700, 1006)]
    rows += [summary("grad_norm", step, 1.0 if step < 1000 else 12.0) for step in range(700, 1006)]
    event = {"run": "run1", "attempt": "a1", "node": "n", "step": 900, "at": 1.0, "event": "checkpoint", "attrs": {"path": "/ckpt/900"}}
    spike = Finding(
        kind="loss_divergence", severity=Severity.CRITICAL, onset_step=1000, detected_step=1005, attempt="a1", summary="loss 6.4, was 2.4"
    )
    with engine.begin() as connection:
        connection.execute(runs.insert().values(id="run1", project="smol", name="3b", created_at=0.0, updated_at=0.0))
        connection.execute(step_summaries.insert(), rows)
        connection.execute(run_events.insert().values(**event, offset=1, number=0))
        Alerting(Policy()).apply(connection, RUN, [spike], 1000.0)
        incident = connection.execute(sa.select(incidents)).one()
        notice = connection.execute(sa.select(outbox.c.notice)).scalar_one()
    assert incident.causes[0]["cause"] == "changed_schedule"
    assert incident.causes[0]["evidence"] == ["learning rate x10.0: 0.0003 before, 0.003 since"]
    assert incident.evidence["rewind"] == {"before_step": 1000, "skip_steps": [1000, 1005], "step": 900, "path": "/ckpt/900"}
    assert "the checkpoint of step 900" in notice["causes"][0]["action"]


def look(offset: int, step: int, **values: float) -> Entry:
    """A look of the host's sampler, as the agent sends it."""
    frame = Frame("run1", "a1", "n1", "boot", offset, 1, np.array([NODE_RANK], "<i4"), np.array([step]), np.array([offset]))
    frame.metrics = {name.replace("__", "."): Column(np.array([value])) for name, value in values.items()}
    return Entry(offset, 0.0, encode(frame))


def test_the_host_s_signals_are_found_however_many_disks_it_has(tmp_path: Any) -> None:
    """Waiting for I/O has one row a node; twenty disks must not crowd it out."""
    samples = DuckDbQueries(tmp_path / "samples.duckdb")
    disks = {f"host_disk_read_latency_seconds__nvme{number}n1": 1e-4 for number in range(20)}
    samples.write([look(n, 50 * n, **disks, host_io_pressure_ratio=0.02 if n < 20 else 0.6, host_load_1m=3.0) for n in range(1, 24)])
    facts: dict[str, Any] = {"id": "i", "run": "run1", "project": "p", "kind": "data_stall", "scope": "run", "severity": Severity.WARNING}
    facts |= {"state": "open", "onset_step": 1000, "detected_step": 1150, "summary": "", "created": 0.0, "updated": 0.0, "nodes": ["n1"]}
    found = signals.of_hosts(samples, Incident(**facts))
    samples.close()
    waiting = found["host_io_pressure_ratio"]
    assert (round(waiting.before, 3), round(waiting.since, 3), waiting.peak) == (0.02, 0.6, 0.6)
    assert found["host_load_1m"].ratio == 1.0 and 5 < len(found) <= 16


def ranks_look(offset: int, attempt: str, step: int, waits: list[float]) -> Entry:
    """A look of the sampler at all ranks, as the agent sends it."""
    size = len(waits)
    frame = Frame("run1", attempt, "n1", f"boot-{attempt}", offset, 1, np.arange(size), np.full(size, step), np.full(size, offset))
    frame.metrics = {"process_cpu_wait_ratio": Column(np.array(waits))}
    return Entry(offset, 0.0, encode(frame))


def test_the_one_rank_of_many_that_waits_for_a_cpu_is_found_and_an_older_attempt_counts_for_nothing(tmp_path: Any) -> None:
    """The run is slow as a whole; what the ranks wait for tells which of them it waits for. The attempt before was starved at the same steps."""
    samples = DuckDbQueries(tmp_path / "samples.duckdb")
    calm, starved = [0.02] * 8, [0.02] * 5 + [0.7] + [0.02] * 2
    samples.write([ranks_look(n, "a0", 50 * n, [0.9] * 8) for n in range(1, 24)])
    samples.write([ranks_look(100 + n, "a1", 50 * n, calm if n < 20 else starved) for n in range(1, 24)])
    facts: dict[str, Any] = {
        "id": "i",
        "run": "run1",
        "project": "p",
        "kind": "throughput_drop",
        "scope": "run",
        "severity": Severity.WARNING,
    }
    facts |= {"state": "open", "onset_step": 1000, "detected_step": 1150, "summary": "", "created": 0.0, "updated": 0.0, "attempt": "a1"}
    found = signals.of_processes(samples, Incident(**facts), 8)["process_cpu_wait_ratio"]
    elsewhere = signals.of_processes(samples, Incident(**facts | {"ranks": [2]}), 8)["process_cpu_wait_ratio"]
    samples.close()
    assert (round(found.before, 3), round(found.since, 3), found.peak_rank) == (0.02, 0.7, 5)
    assert round(elsewhere.since, 3) == 0.02
