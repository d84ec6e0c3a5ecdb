"""Somebody or something sent a signal."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, happened, mentions, raised

KILLED = Cause(
    name="killed",
    explains=("rank_lost", "restart_storm"),
    sentence="{place} was killed from outside, without a word of its own",
    action="ask who sent the signal (scheduler, OOM killer in dmesg, a person); if nobody did, look at the node. Restart from {rewind}",
    clues=(
        Clue(
            2.5,
            mentions(
                lambda text: any(word in text for word in ("sigkill", "signal 9", "killed", "sigterm", "signal 15", "without a word")),
                "the process was gone without a word of its own",
                "why",
                "signal",
            ),
        ),
        Clue(2.0, happened("rank_terminated")),
        Clue(2.5, happened("rank_lost")),
        Clue(
            -3.0, mentions(lambda text: "out of memory" in text or "oom" in text.replace("room", ""), "the end says: out of memory", "why")
        ),
        Clue(-2.0, happened("gpu_error")),
        Clue(-3.0, raised),
    ),
)
