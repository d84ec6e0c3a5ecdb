"""A step in one line per metric: what outlives the per-rank points and what the dashboards read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holter_monitor.stream.steps import Mask, Ranks, Step, Values


@dataclass(frozen=True, slots=True)
class Summary:
    """One metric of one step over its ranks. `count` ranks logged it; the numbers leave non-finite values out (None if nothing is left)."""

    metric: str
    attempt: str
    step: int
    at: float
    count: int
    mean: float | None
    min: float | None
    max: float | None
    median: float | None
    min_rank: int | None
    max_rank: int | None
    non_finite: int


def summarize(step: Step) -> list[Summary]:
    """The step's summaries, a metric each. Vectorised over ranks: 24 metrics of 16,384 ranks take some milliseconds."""
    lines = []
    for metric in step.metrics:
        column = step.column(metric)
        if column is not None:
            lines.append(_line(step, metric, column, step.ranks))
    return lines


def _line(step: Step, metric: str, column: tuple[Values, Mask], ranks: Ranks) -> Summary:
    values, present = column
    count = int(present.sum())
    finite = present & np.isfinite(values)
    kept, who = (values, ranks) if finite.all() else (values[finite], ranks[finite])
    head = (metric, step.attempt, step.number, step.time, count)
    if not len(kept):
        return Summary(*head, None, None, None, None, None, None, count)
    low, high = int(kept.argmin()), int(kept.argmax())
    mean = float(np.clip(kept.mean(), kept[low], kept[high]))
    return Summary(
        *head, mean, float(kept[low]), float(kept[high]), float(np.median(kept)), int(who[low]), int(who[high]), count - len(kept)
    )
