"""A PostgreSQL of the test's own, and the tables filled with what a sick run leaves behind."""

from __future__ import annotations

import csv
import glob
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from holter_monitor.store import tables

PLAYBOOK = Path(__file__).parents[1] / "data" / "playbook"
START = 1_790_000_000.0
"""Unix seconds at which the run of the fixture starts."""


def _binaries() -> str:
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb")) or [path for path in [shutil.which("initdb")] if path]
    if not found:
        pytest.skip("PostgreSQL's binaries are not installed: no query of a dashboard was tried")
    return str(Path(found[-1]).parent)


def _owner() -> str | None:
    """The server refuses to run as root."""
    return "postgres" if os.geteuid() == 0 else None


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A server on a Unix socket in a folder of its own; the URL is SQLAlchemy's."""
    binaries, owner = _binaries(), _owner()
    folder = Path(tempfile.mkdtemp(prefix="holter-pg-"))
    if owner:
        shutil.chown(folder, owner)

    def call(*words: str) -> None:
        subprocess.run(words, user=owner, check=True, capture_output=True, timeout=60, cwd=folder)

    try:
        call(f"{binaries}/initdb", "-D", f"{folder}/data", "-U", "holter", "-A", "trust", "-N")
        options = f"-k {folder} -h '' -c fsync=off"
        call(f"{binaries}/pg_ctl", "-D", f"{folder}/data", "-l", f"{folder}/log", "-w", "-o", options, "start")
        yield f"postgresql+psycopg://holter@/postgres?host={folder}"
    finally:
        subprocess.run([f"{binaries}/pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "stop"], user=owner, check=False, cwd="/")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def database(postgres_url: str) -> Iterator[sa.Engine]:
    """The control store of two attempts of one real run (`Weka drops`: throughput) and one loss trace."""
    engine = sa.create_engine(postgres_url)
    tables.metadata.create_all(engine)
    with engine.begin() as connection:
        _fill(connection)
    yield engine
    engine.dispose()


def _fill(connection: sa.Connection) -> None:
    def insert(table: sa.Table, *rows: dict[str, Any]) -> None:
        keys = {key: None for row in rows for key in row if key in table.c}
        connection.execute(table.insert(), [{**keys, **row} for row in rows])

    now = START + 4000
    common = {"project": "smol", "world_size": 2, "created_at": START, "updated_at": now, "last_step": 700}
    insert(
        tables.runs,
        {"id": "r1", "name": "3b", "state": "running", **common},
        {"id": "r2", "name": "it's", "state": "silent", **common},
    )
    mesh = {str(rank): {"node": f"gpu-{rank}", "gpu": 0, "dp": rank, "tp": 0} for rank in range(2)}
    attempt = {"run": "r1", "world_size": 2, "mesh": mesh, "state": "lost", "ended_at": START + 1000}
    insert(
        tables.attempts,
        {"attempt": "a1", "number": 1, "started_at": START, "first_step": 1, "last_step": 300, **attempt},
        {
            **attempt,
            "attempt": "a2",
            "number": 2,
            "started_at": START + 1100,
            "state": "running",
            "ended_at": None,
            "first_step": 201,
            "last_step": 700,
        },
    )
    insert(
        tables.agents,
        *(
            {
                "run": "r1",
                "node": f"gpu-{n}",
                "boot": f"b{n}",
                "attempt": "a2",
                "first_seen_at": START,
                "last_seen_at": now - n,
                "last_seq": 9,
                "skew_seconds": 0.01,
                "dropped": {"spool_full": 3} if n else {},
            }
            for n in range(2)
        ),
    )
    insert(tables.step_summaries, *_summaries())
    spent = {"productive": 2_700.0, "data": 500.0, "recomputed": 400.0}
    hours = [{"run": "r1", "hour_at": START // 3600 * 3600 + 3600 * n, "cause": c, "seconds": s} for n in (0, 1) for c, s in spent.items()]
    insert(tables.goodput_hours, *(row | {"rank_seconds": 2 * row["seconds"]} for row in hours))
    lost = {"down_seconds": 100.0, "startup_seconds": 20.0, "recomputed_seconds": 400.0}
    insert(tables.breaks, {"run": "r1", "attempt": "a1", "state": "lost", "at": START + 1000, "ranks": 2, **lost})
    _fill_events_and_incidents(insert, now)


def _summaries() -> Iterator[dict[str, Any]]:
    """Steps 1 to 300 in the first attempt; the second rewinds to 201 and goes on to 700."""
    with (PLAYBOOK / "throughput_weka_first_700.csv").open() as file:
        speeds = {int(row["step"]): float(row["tokens_per_second"]) for row in csv.DictReader(file)}
    for attempt, first, last, start in (("a1", 1, 300, START), ("a2", 201, 700, START + 1100)):
        at = start
        for step in range(first, last + 1):
            seconds = 30_000 / speeds[step]
            at += seconds
            values = {
                "tokens_per_second": speeds[step],
                "step_time_seconds": seconds,
                "loss": 11 * step**-0.2,
                "grad_norm": 1 + 1 / step,
                "lr": 1e-4,
                "tokens": 30_000.0,
                "data_wait_seconds": seconds / 10,
                "compute_seconds": seconds / 2,
                "gpu_temperature_celsius": 60.0,
                "gpu_sm_clock_hertz": 1.4e9,
                "gpu_power_watts": 600.0,
                "gpu_utilization_ratio": 0.9,
                "gpu_memory_used_bytes": 6e10,
                "process_memory_rss_bytes": 4e9,
            }
            for metric, value in values.items():
                spread = {"mean": value, "min": value * 0.99, "max": value * 1.01, "median": value, "min_rank": 0, "max_rank": 1}
                yield {"run": "r1", "metric": metric, "attempt": attempt, "step": step, "at": at, "count": 2, "non_finite": 0, **spread}


def _fill_events_and_incidents(insert: Any, now: float) -> None:
    events = [("checkpoint", 200), ("rank_started", None), ("data_stage_change", 400)]
    insert(
        tables.run_events,
        *(
            {
                "run": "r1",
                "attempt": "a1",
                "node": "gpu-0",
                "rank": 0,
                "step": step,
                "at": START + 10 * n,
                "event": word,
                "attrs": {"path": "/ckpt"},
                "offset": n,
                "number": 0,
            }
            for n, (word, step) in enumerate(events)
        ),
    )
    incident = {
        "run": "r1", "project": "smol", "scope": "run", "attempt": "a1", "detected_step": 292, "metric": "tokens_per_second",
        "ranks": [], "nodes": [], "evidence": {}, "created_at": START + 700, "updated_at": now,
        "causes": [{"cause": "storage", "confidence": 0.7, "sentence": "All nodes at once.", "action": "Move the data to local disk."}],
    }  # fmt: skip
    insert(
        tables.incidents,
        {**incident, "id": "i1", "kind": "throughput_drop", "severity": "critical", "state": "acknowledged", "onset_step": 291,
         "summary": "Throughput −41 %", "cost_seconds": 300.0, "acknowledged_by": "ada", "acknowledged_at": START + 800},
        {**incident, "id": "i2", "kind": "loss_spike", "severity": "warning", "state": "resolved", "onset_step": 100, "end_step": 101,
         "summary": "loss 9", "cost_seconds": None, "resolved_at": START + 900},
        {**incident, "id": "i3", "kind": "straggler", "severity": "warning", "state": "open", "onset_step": 400, "summary": "rank 1 is slow"},
    )  # fmt: skip
    insert(tables.incident_history, {"incident": "i1", "at": START + 800, "change": "acknowledged", "actor": "ada", "note": "looking"})
    notice = {"incident": "i1", "receiver": "slack", "transition": "trigger", "notice": {}, "created_at": START + 700, "next_at": now}
    insert(
        tables.outbox,
        {**notice, "idempotency_key": "k1", "position": 1, "status": "sent", "attempts": 2, "sent_at": START + 703},
        {**notice, "idempotency_key": "k2", "position": 2, "status": "dead", "attempts": 9, "last_error": "404", "sent_at": None},
    )
    insert(
        tables.silences,
        {
            "id": "s1",
            "matchers": {"kind": "loss_*"},
            "author": "ada",
            "reason": "known",
            "starts_at": now,
            "ends_at": 4e9,
            "created_at": now,
        },
    )
