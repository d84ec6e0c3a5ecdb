"""One slow step by itself: whether it is new in its run, and whether it stands where a first evaluation or checkpoint would."""

from __future__ import annotations

from holter_monitor.stream.pace import Pace, Stall

LEAST_RECORDS = 100


def is_new(pace: Pace, stall: Stall) -> bool:
    """Whether neither a stall nor a pause of its size came before it. Each further one must be larger by far, so a run has a handful of them
    however long it is."""
    size = 1.0 + 0.4 * (stall.ratio - 1.0)
    alike = sum(1 for other in pace.stalls if other.ratio > size and not other.excused)
    return alike == 1 and pace.worst_pause < size and pace.records >= LEAST_RECORDS


def is_lone(pace: Pace, stall: Stall, after: int = 0) -> bool:
    """Whether it is new, `after` steps into the run, and no multiple of a hundred or beside one (where the log holds others, too)."""
    is_round = pace.stride < 50.0 and _is_near(stall.step, 100)
    return not is_round and stall.step - pace.first_step >= after and is_new(pace, stall)


def is_odd(pace: Pace, stall: Stall) -> bool:
    """The same for much less round numbers: early in a run a stall is more likely its first regular pause."""
    every = 25 if pace.stride <= 5.0 else int(10 * pace.stride)
    return is_new(pace, stall) and not _is_near(stall.step, every) and not _is_near(stall.step, 64)


def _is_near(step: int, length: int) -> bool:
    return min(step % length, -step % length) <= 1
