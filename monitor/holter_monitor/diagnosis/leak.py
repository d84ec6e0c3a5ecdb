"""Memory grows with every step: a worker, a cache, an index that nobody empties."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, beside, kind_is, rises, says

LEAK = Cause(
    name="leak",
    explains=("memory_growth", "rank_lost", "throughput_decline", "throughput_drop", "data_stall", "disk_pressure"),
    sentence="memory grows with every step on {place}",
    action="look at which process grows (workers count into it): a dataset that keeps what it read, an index that grows with the run's length, "
    "a list of tensors. A restart buys time; fewer or recycled workers buy more",
    clues=(
        Clue(3.5, kind_is("memory_growth")),
        Clue(2.5, beside("memory_growth")),
        Clue(1.5, rises("process_memory_rss_bytes", 1.2, "resident memory")),
        Clue(1.5, rises("process_memory_shared_bytes", 1.2, "shared memory")),
        Clue(1.0, says("bytes_per_step", lambda rate: rate > 0, "{value:,.0f} bytes a step")),
    ),
)
