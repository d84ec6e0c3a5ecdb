"""From an incident to its ranked causes, each with what speaks for it and what against. A cause is a file, listed in `CAUSES`."""

from __future__ import annotations

from math import exp
from typing import Any

from holter_monitor.diagnosis.bad_batch import BAD_BATCH
from holter_monitor.diagnosis.busy_cpu import BUSY_CPU
from holter_monitor.diagnosis.case import Case, Event, Signal
from holter_monitor.diagnosis.cause import Cause, facts
from holter_monitor.diagnosis.changed_data import CHANGED_DATA
from holter_monitor.diagnosis.changed_schedule import CHANGED_SCHEDULE
from holter_monitor.diagnosis.checkpoint_late import CHECKPOINT_LATE
from holter_monitor.diagnosis.checkpoint_pause import CHECKPOINT_PAUSE
from holter_monitor.diagnosis.copy_corrupt import COPY_CORRUPT
from holter_monitor.diagnosis.copy_late import COPY_LATE
from holter_monitor.diagnosis.crash import CRASH
from holter_monitor.diagnosis.data_position import DATA_POSITION
from holter_monitor.diagnosis.deleted_checkpoint import DELETED_CHECKPOINT
from holter_monitor.diagnosis.equal_seeds import EQUAL_SEEDS
from holter_monitor.diagnosis.faulty_gpu import FAULTY_GPU
from holter_monitor.diagnosis.frozen_rank import FROZEN_RANK
from holter_monitor.diagnosis.full_disk import FULL_DISK
from holter_monitor.diagnosis.garbage_collection import GARBAGE_COLLECTION
from holter_monitor.diagnosis.instability import INSTABILITY
from holter_monitor.diagnosis.killed import KILLED
from holter_monitor.diagnosis.leak import LEAK
from holter_monitor.diagnosis.lost_node import LOST_NODE
from holter_monitor.diagnosis.missing_copy import MISSING_COPY
from holter_monitor.diagnosis.missing_from_collective import MISSING_FROM_COLLECTIVE
from holter_monitor.diagnosis.other_precision import OTHER_PRECISION
from holter_monitor.diagnosis.out_of_memory import OUT_OF_MEMORY
from holter_monitor.diagnosis.resumed_wrong import RESUMED_WRONG
from holter_monitor.diagnosis.slow_loader import SLOW_LOADER
from holter_monitor.diagnosis.slow_network import SLOW_NETWORK
from holter_monitor.diagnosis.slow_storage import SLOW_STORAGE
from holter_monitor.diagnosis.standing_elsewhere import STANDING_ELSEWHERE
from holter_monitor.diagnosis.stuck_collective import STUCK_COLLECTIVE
from holter_monitor.diagnosis.throttled_gpu import THROTTLED_GPU
from holter_monitor.diagnosis.unlike_collectives import UNLIKE_COLLECTIVES
from holter_monitor.diagnosis.unseen_storage import UNSEEN_STORAGE

CAUSES: tuple[Cause, ...] = (
    SLOW_STORAGE,
    SLOW_LOADER,
    MISSING_COPY,
    DATA_POSITION,
    BUSY_CPU,
    GARBAGE_COLLECTION,
    CHECKPOINT_PAUSE,
    SLOW_NETWORK,
    THROTTLED_GPU,
    FAULTY_GPU,
    LEAK,
    OUT_OF_MEMORY,
    KILLED,
    CRASH,
    LOST_NODE,
    FROZEN_RANK,
    MISSING_FROM_COLLECTIVE,
    UNLIKE_COLLECTIVES,
    STANDING_ELSEWHERE,
    STUCK_COLLECTIVE,
    BAD_BATCH,
    INSTABILITY,
    CHANGED_SCHEDULE,
    CHANGED_DATA,
    RESUMED_WRONG,
    EQUAL_SEEDS,
    OTHER_PRECISION,
    FULL_DISK,
    CHECKPOINT_LATE,
    COPY_LATE,
    COPY_CORRUPT,
    UNSEEN_STORAGE,
    DELETED_CHECKPOINT,
)
_LEAST = 0.08
_AT_MOST = 5
_SUPPORT = 1.0
"""The strongest clue in favour must weigh so much for a cause to be named: several hints together still fit too many causes."""


def diagnose(case: Case) -> list[dict[str, Any]]:
    """The causes that have a clue for them, best first: `{"cause", "confidence", "sentence", "evidence", "against", "action"}`. The confidences
    and the odds that it is something else add up to one."""
    weighed = [found for cause in CAUSES if case.incident.kind in cause.explains and (found := _weigh(cause, case)) is not None]
    total = 1.0 + sum(exp(score) for score, _ in weighed)
    words = facts(case)
    ranked = sorted(((exp(score) / total, found) for score, found in weighed), key=lambda pair: -pair[0])
    return [
        {
            "cause": cause.name,
            "confidence": round(min(confidence, 0.97), 2),
            "sentence": cause.sentence.format_map(words),
            "evidence": seen,
            "against": contrary,
            "action": cause.action.format_map(words),
        }
        for confidence, (cause, seen, contrary) in ranked[:_AT_MOST]
        if confidence >= _LEAST
    ]


def _weigh(cause: Cause, case: Case) -> tuple[float, tuple[Cause, list[str], list[str]]] | None:
    score, support = cause.prior, 0.0
    seen: list[str] = []
    contrary: list[str] = []
    for clue in cause.clues:
        words = clue.look(case)
        if words is not None:
            score += clue.weight
            support = max(support, clue.weight)
            (seen if clue.weight > 0 else contrary).append(words)
    # "All ranks at once" fits many causes: a hint alone names none of them.
    return (score, (cause, seen, contrary)) if support >= _SUPPORT else None


__all__ = ["CAUSES", "Case", "Cause", "Event", "Signal", "diagnose"]
