"""Keeps the per-rank points within their age and size. Summaries, events and incidents stay."""

from __future__ import annotations

import logging
from typing import Protocol

import sqlalchemy as sa

from holter_monitor.settings import Retention
from holter_monitor.store.control import Control
from holter_monitor.store.tables import incidents

logger = logging.getLogger(__name__)
DAY_NS = 86_400 * 10**9
STEPS_DOWN = 8
"""How often, at most, one sweep drops another piece of the oldest points for the size's sake."""


class Forgetful(Protocol):
    """A sample store that can forget."""

    def runs(self) -> list[str]: ...
    def thin(self, run: str, *, before_ns: int, every: int, keep: list[tuple[int, int]]) -> int: ...
    def drop(self, run: str, *, before_ns: int) -> int: ...
    def oldest_ns(self, run: str) -> int | None: ...
    def size_bytes(self) -> int: ...


def sweep(samples: Forgetful, control: Control, rules: Retention, now: float) -> int:
    """Apply the rules once; how many rows went."""
    now_ns = int(now * 1e9)
    gone = 0
    for run in samples.runs():
        gone += samples.drop(run, before_ns=now_ns - int(rules.days * DAY_NS))
        before_ns, keep = now_ns - int(rules.full_days * DAY_NS), around_incidents(control, run, rules.around_steps)
        gone += samples.thin(run, before_ns=before_ns, every=rules.thin_every, keep=keep)
    gone += _shrink(samples, rules, now_ns)
    if gone:
        logger.info("retention: %d rows of old points went", gone)
    return gone


def around_incidents(control: Control, run: str, steps: int) -> list[tuple[int, int]]:
    """The steps around the run's incidents, merged."""
    query = sa.select(incidents.c.onset_step, sa.func.coalesce(incidents.c.end_step, incidents.c.detected_step)).where(
        incidents.c.run == run
    )
    with control.read() as connection:
        found = sorted((first - steps, last + steps) for first, last in connection.execute(query))
    merged: list[tuple[int, int]] = []
    for first, last in found:
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _shrink(samples: Forgetful, rules: Retention, now_ns: int) -> int:
    """Too large: the oldest tenth of the time span goes, run by run, until it fits."""
    gone = 0
    for _ in range(STEPS_DOWN):
        if samples.size_bytes() <= rules.bytes:
            break
        ages = {run: oldest for run in samples.runs() if (oldest := samples.oldest_ns(run)) is not None}
        if not ages:
            break
        oldest = min(ages.values())
        cut = oldest + max((now_ns - oldest) // 10, 10**9)
        gone += sum(samples.drop(run, before_ns=cut) for run, age in ages.items() if age < cut)
    return gone
