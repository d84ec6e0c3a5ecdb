"""The ranks wait for each other in different places."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, beside, everywhere, mentions

STUCK_COLLECTIVE = Cause(
    name="stuck_collective",
    explains=("hang",),
    sentence="the ranks wait for each other in a collective that not all of them have joined",
    action="compare the stacks: who is somewhere else? Ranks that took another branch, an uneven number of batches, a lost peer. Restart from {rewind}",
    clues=(
        Clue(
            1.5,
            mentions(
                lambda text: any(word in text for word in ("nccl", "gloo", "all_reduce", "allreduce", "barrier", "all_gather")),
                "they stand in a collective",
                "stacks",
            ),
        ),
        Clue(1.5, everywhere("all ranks stand still")),
        Clue(-1.0, beside("rank_lost")),
    ),
)
