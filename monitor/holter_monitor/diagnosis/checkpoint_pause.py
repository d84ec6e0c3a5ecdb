"""A checkpoint is being written, and training waits for it."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, happened, rises

CHECKPOINT_PAUSE = Cause(
    name="checkpoint_pause",
    explains=("throughput_stalls", "throughput_drop", "hang"),
    sentence="training waits while a checkpoint is written",
    action="write checkpoints asynchronously or to local disk first; declare them with run.checkpoint and they no longer count as stalls",
    clues=(
        Clue(2.5, happened("checkpoint", before=3, after=3)),
        Clue(2.0, rises("section_checkpoint_seconds", 2.0, "time in the checkpoint section")),
        Clue(1.0, rises("host_disk_write_bytes_per_second", 3.0, "disk writes")),
    ),
)
