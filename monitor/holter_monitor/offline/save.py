"""A scanned log handed to a running collector as a run: to be looked at on the web page and in Grafana beside live ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from math import isfinite, isnan
from pathlib import Path
from typing import Any

from holter_monitor.client import Client
from holter_monitor.errors import ClientError
from holter_monitor.imports.records import LogError
from holter_monitor.offline.scan import Scanned, ScanSettings, opened, source_of, steps
from holter_monitor.stream.steps import Step

BATCH_POINTS = 2_000
ABSOLUTE = 1e8
"""A time beyond this is a date; below, seconds since the run's start."""
QUIET = timedelta(hours=2)
"""Nobody is to be woken by what happened last month: the saved run is silenced for so long."""


@dataclass(slots=True)
class _Saved:
    """One run on its way into the collector."""

    client: Client
    id: str
    name: str
    start: float
    """What is added to the log's times to make dates of them."""
    attempt: str = ""
    points: list[dict[str, Any]] = field(default_factory=list)
    sent: int = 0
    rows: int = 0

    def add(self, step: Step) -> None:
        if step.attempt != self.attempt:
            self.flush()
            self.attempt = step.attempt
        at = step.time if step.time > ABSOLUTE else self.start + step.time
        self.points += _points(step, int(at * 1e9))
        self.points += [{**event, "time_ns": int(at * 1e9)} for event in step.events]
        if len(self.points) >= BATCH_POINTS:
            self.flush()

    def flush(self) -> None:
        for start in range(0, len(self.points), BATCH_POINTS):
            batch = self.points[start : start + BATCH_POINTS]
            key = hashlib.sha256(f"{self.name}|{self.sent}|{batch}".encode()).hexdigest()[:40]
            self.client.append(self.id, self.attempt or "1", batch, key=key)
            self.sent += 1
            self.rows += len(batch)
        self.points.clear()

    def finish(self) -> None:
        self.flush()
        last = {"event": "rank_finished", "rank": 0, "step": None, "attrs": {"status": "finished"}}
        self.client.append(self.id, self.attempt or "1", [last], key=f"{self.name}|end|{self.sent}")


def save(
    client: Client, project: str, paths: Iterable[str | Path], settings: ScanSettings, runs: list[Scanned]
) -> Iterator[tuple[str, str, int]]:
    """Reads the logs once more and stores them; answers with `(source, run id, rows)` of each. What could not be read is left out. Raises
    `ClientError`. A log without dates is placed so that it ends now."""
    scanned = {run.source: run for run in runs}
    now = datetime.now(timezone.utc)
    for log in opened(paths, settings):
        if isinstance(log, LogError):
            continue
        saving: dict[str, _Saved] = {}
        try:
            for name, step in steps(*log, settings):
                source = source_of(log[0], name)
                if source not in saving:
                    saving[source] = _begin(client, project, scanned.get(source) or Scanned(source, log[1].name), now)
                saving[source].add(step)
        except LogError:
            pass  # `scan` has said what is wrong with it; its readable part is stored.
        for source, run in saving.items():
            run.finish()
            yield source, run.id, run.rows


def _begin(client: Client, project: str, run: Scanned, now: datetime) -> _Saved:
    name = run.source.lstrip("./").replace("/", ".")[-200:]
    made = client.create_run(project, name, world_size=run.num_ranks, config={"source": run.source, "format": run.format})
    try:
        client.silence({"project": project, "run": name}, "saved from a log by `holter scan --save`", now + QUIET)
    except ClientError as error:
        if error.status != 403:  # a token that may only write saves the run all the same
            raise
    return _Saved(client, made["id"], name, now.timestamp() - (run.seconds or 0.0))


def _points(step: Step, time_ns: int) -> Iterator[dict[str, Any]]:
    if len(step.ranks) == 1:
        means = {metric: spelled(value) for metric in step.metrics if (value := step.mean(metric)) is not None}
        yield {"step": step.number, "rank": int(step.ranks[0]), "time_ns": time_ns, **means}
        return
    columns = {metric: column for metric in step.metrics if (column := step.column(metric)) is not None}
    for place, rank in enumerate(step.ranks.tolist()):
        row = {metric: spelled(float(values[place])) for metric, (values, present) in columns.items() if present[place]}
        if row:
            yield {"step": step.number, "rank": rank, "time_ns": time_ns, **row}


def spelled(value: float) -> float | str:
    """JSON has no word for what is not finite."""
    if isfinite(value):
        return value
    return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"
