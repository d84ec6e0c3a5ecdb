"""The kernel or the allocator ended it: no memory left."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, beside, mentions

OUT_OF_MEMORY = Cause(
    name="out_of_memory",
    explains=("rank_lost", "restart_storm", "agent_silent"),
    sentence="{place} ran out of memory",
    action="look at memory before the end; lower what grew (workers, prefetch, batch, activation memory) and restart from {rewind}",
    clues=(
        Clue(
            4.5,
            mentions(
                lambda text: "out of memory" in text or "outofmemory" in text or "oom" in text.replace("room", ""),
                "the end says: out of memory",
                "why",
                "endings",
            ),
        ),
        Clue(2.0, beside("memory_growth")),
    ),
)
