"""Real traces into a collector, for the tests of the page: the playbook's throughput trace on eight ranks, and its two loss traces."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path
from typing import Any

PLAYBOOK = Path(__file__).parents[1] / "data" / "playbook"
TOKENS = 16_384
RANKS = 8
SLOW_RANK, SLOW_FROM = 5, 400
BATCH = 2_000
"""Points in a request: under the collector's limit of 1 MiB."""


def post(collector: Any, run: str, points: list[dict[str, Any]], **parameters: Any) -> None:
    for start in range(0, len(points), BATCH):
        answer = collector.http.post(f"/api/v1/runs/{run}/points", json=points[start : start + BATCH], params=parameters)
        assert answer.status_code == 200, answer.text


def throughput(collector: Any, name: str = "3b-weka") -> str:
    """700 steps of "Weka drops", the trace's tokens a second on each rank. From step 400 rank 5 computes 18 % longer than the others, which the
    trace did not have: its metrics are the trace's, the ranks are ours."""
    with (PLAYBOOK / "throughput_weka_first_700.csv").open() as file:
        speeds = [float(row["tokens_per_second"]) for row in csv.DictReader(file)]
    run = collector.new_run(name, "smollm3", world_size=RANKS, config={"lr": 2e-4, "tp": 2})
    at = time.time() - sum(TOKENS / speed for speed in speeds)
    points: list[dict[str, Any]] = []
    for step, speed in enumerate(speeds, 1):
        seconds = TOKENS / speed
        at += seconds
        for rank in range(RANKS):
            slow = 1.18 if rank == SLOW_RANK and step >= SLOW_FROM else 1.0
            points.append(
                {
                    "step": step,
                    "rank": rank,
                    "time_ns": int(at * 1e9),
                    "tokens_per_second": speed,
                    "step_time_seconds": seconds,
                    "tokens": TOKENS,
                    "data_wait_seconds": max(0.01, seconds - 1.15),
                    "compute_seconds": slow * (1 + 0.01 * math.sin(7 * step + 3 * rank)),
                    "loss": 2.2 + 9 / math.sqrt(step) + 0.02 * math.sin(13 * step + rank),
                    "grad_norm": 0.5 + 2 / (1 + step / 20),
                    "gpu_temperature_celsius": 61 + (14 if slow > 1 else 0),
                }
            )
        if step % 100 == 0:
            points.append({"event": "checkpoint", "step": step, "attrs": {"path": f"/ckpt/{step}"}})
    post(collector, run, points)
    return run


def losses(collector: Any) -> dict[str, str]:
    """The playbook's two loss traces, a point a step, by tokens."""
    runs = {}
    with (PLAYBOOK / "spike_loss.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("Non recoverable spikes", "Recoverable spikes"):
        trace = [row for row in rows if row["run"] == name]
        run = runs[name] = collector.new_run(name.lower().replace(" ", "-"), "smollm3")
        at, before, points = time.time() - 20 * len(trace), 0.0, []
        for step, row in enumerate(trace, 1):
            tokens = float(row["tokens"])
            points.append(
                {"step": step, "rank": 0, "time_ns": int((at + 20 * step) * 1e9), "loss": float(row["loss"]), "tokens": tokens - before}
            )
            before = tokens
        post(collector, run, points)
    return runs
