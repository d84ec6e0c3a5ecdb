"""A disk is full, or will be soon."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, beside, kind_is, mentions, says

FULL_DISK = Cause(
    name="full_disk",
    explains=("disk_pressure", "checkpoint_lost", "checkpoint_overdue", "rank_lost"),
    sentence="the disk is full, or will be soon",
    action="make room (old checkpoints that are copied elsewhere, caches, core dumps) before the next checkpoint is due",
    clues=(
        Clue(3.0, says("free_bytes", lambda free: free is not None, "{value:,.0f} bytes free")),
        Clue(2.5, beside("disk_pressure")),
        Clue(4.5, mentions(lambda text: "no space left" in text or "enospc" in text, "the end says: no space left", "why")),
        Clue(-1.5, says("latency_ratio", lambda ratio: ratio > 3, "it is about latency (x{value})")),
        Clue(0.5, kind_is("disk_pressure", "the file system of the node")),
    ),
)
