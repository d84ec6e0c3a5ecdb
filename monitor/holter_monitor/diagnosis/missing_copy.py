"""A node that joined (a spare) without its whole copy of the dataset: it reads from afar, or repairs, while all wait."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, says

MISSING_COPY = Cause(
    name="missing_copy",
    explains=("data_stall",),
    sentence="{nodes} joined without its whole copy of the dataset",
    action="compare its copy with another node's (files, bytes, checksums) and finish it, or swap in a spare that has its own; "
    "the other nodes' data is fine: leave them alone",
    clues=(
        Clue(4.5, says("replaced", lambda replaced: replaced is True, "it is new in this attempt, and waits from its first step on")),
        Clue(1.0, says("read_latency_ratio", lambda ratio: ratio > 2, "its reads take x{value}")),
    ),
)
