"""The training code raised, and its process ended."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, mentions, raised

CRASH = Cause(
    name="crash",
    explains=("rank_lost", "restart_storm", "hang"),
    sentence="the training code of {place} raised an exception",
    action="read the traceback of the first rank that failed; the others only followed",
    clues=(
        Clue(4.0, raised),
        Clue(1.0, mentions(lambda text: "error:" in text or "exception" in text, "the end says which error", "why", "endings")),
        Clue(-3.0, mentions(lambda text: "no space left" in text or "enospc" in text, "the end says: no space left", "why")),
        Clue(-3.0, mentions(lambda text: "out of memory" in text or "outofmemory" in text, "the end says: out of memory", "why")),
    ),
)
