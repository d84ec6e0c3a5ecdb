"""Seeded streams of steps for the detectors' tests, and the shared traces where they are at hand."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from holter_monitor.stream.steps import Step, Topology

DATA = Path(__file__).parent / "data"


def feed(detector, steps):
    """All findings of the detector over these steps, with its last words."""
    said = []
    for step in steps:
        answer = detector.observe(step)
        said += [] if answer is None else [answer] if not isinstance(answer, list) else answer
    last = detector.finish() if hasattr(detector, "finish") else None
    return said + ([] if last is None else [last] if not isinstance(last, list) else last)


def paced(seconds, *, words=None, waits=None, attempt="1", first=0, tokens=1000.0, extra=None):
    """Steps of one rank from an array of step times; `words` = {index: event}."""
    for place, value in enumerate(seconds):
        values = {"step_time_seconds": float(value), "tokens_per_second": tokens / float(value)}
        if waits is not None:
            values["data_wait_seconds"] = float(waits[place])
        if extra is not None:
            values |= {name: float(column[place]) for name, column in extra.items()}
        events = [{"event": words[place], "rank": 0, "step": first + place, "time_ns": 0, "attrs": {}}] if words and place in words else []
        yield Step.of(first + place, values, time=1e9 + place, attempt=attempt, events=events)


def calm(count, seed=0, level=1.0, noise=0.01):
    return level * np.exp(noise * np.random.default_rng(seed).standard_normal(count))


def ranked(columns, *, nodes=None, mesh=None, attempt="1"):
    """Steps of many ranks: `columns` = {metric: array (steps, ranks)}; `nodes` = ranks a node."""
    count, ranks = next(iter(columns.values())).shape
    rows = {name: place for place, name in enumerate(columns)}
    topology = Topology(node_of={rank: f"node-{rank // nodes:02d}" for rank in range(ranks)} if nodes else {})
    if mesh is not None:
        topology.mesh_of = {rank: mesh(rank) for rank in range(ranks)}
    for number in range(count):
        matrix = np.array([column[number] for column in columns.values()], float)
        step = Step.of_ranks(number, np.arange(ranks, dtype=np.int32), rows, matrix, ~np.isnan(matrix), time=1e9 + number, attempt=attempt)
        step.topology = topology
        yield step


def shared_playbook():
    """The folder of the playbook's traces; skips the test, saying so, where they are not at hand."""
    root = Path(os.environ.get("HOLTER_SHARED", Path(__file__).parents[2] / "shared"))
    folder = root / "traces" / "playbook"
    if not folder.is_dir():
        pytest.skip(f"the playbook's traces are not at {folder}; set HOLTER_SHARED")
    return folder


def playbook_trace(name, run, attempt="1"):
    """One run of a playbook trace: steps with tokens a second (and GPU) as logged, and the step time for 6,144 tokens a step."""
    with open(shared_playbook() / name, newline="") as lines:
        rows = sorted((int(float(row["step"])), float(row["throughput"])) for row in csv.DictReader(lines) if row["run_name"] == run)
    for step, rate in rows:
        yield Step.of(step, {"tokens_per_second": rate, "step_time_seconds": 6144 / max(rate, 1e-6)}, attempt=attempt)
