"""What the plot of an incident shows: its metric, and the one that explains it, around the onset."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from holter_monitor.plots import Series
from holter_monitor.store import curves

COMPANION = {"loss": "grad_norm", "grad_norm": "loss", "tokens_per_second": "data_wait_seconds", "step_time_seconds": "data_wait_seconds"}
AROUND = 150
"""Steps before the onset that are drawn, at least."""
POINTS = 700


def window(incident: Mapping[Any, Any]) -> tuple[int, int | None]:
    """First and last step of the picture: the evidence's own window widened, so that the calm before is seen. None is the run's newest step."""
    onset, end = incident["onset_step"], incident["end_step"]
    declared = (incident["evidence"] or {}).get("window")
    first = onset
    if isinstance(declared, list) and len(declared) == 2 and all(isinstance(step, int) for step in declared):
        first = min(onset, declared[0])
    last = None if end is None else end + max(AROUND, (end - onset) // 3)
    return max(0, first - max(AROUND, (0 if end is None else end - onset) // 3)), last


def series(connection: sa.Connection, incident: Mapping[Any, Any]) -> list[Series]:
    """The incident's metric and its companion; throughput where it has none."""
    first, last = window(incident)
    along = curves.stretches(connection, incident["run"], first, last)
    if not along:
        return []
    reader = curves.Reader(connection, incident["run"], along, curves.width_of(along, POINTS))
    metric = incident["metric"] or "loss"
    names = [metric, COMPANION[metric]] if metric in COMPANION else [metric]
    found = [(name, reader.curve(name)) for name in names]
    return [_series(name, columns) for name, columns in found if columns["step"]]


def _series(name: str, columns: Mapping[str, list[Any]]) -> Series:
    pairs = zip(columns["mean"], columns["non_finite"], strict=True)
    values = [math.nan if mean is None and count else mean for mean, count in pairs]
    return Series(metric=name, steps=columns["step"], values=values, low=columns["min"], high=columns["max"])
