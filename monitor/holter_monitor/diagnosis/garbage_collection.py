"""Python collects garbage in the middle of steps."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, peaks, rises, steady

GARBAGE_COLLECTION = Cause(
    name="garbage_collection",
    explains=("throughput_drop", "throughput_stalls", "straggler"),
    sentence="Python's garbage collector pauses {place}",
    action="gc.freeze() after start-up, gc.disable() and gc.collect() by hand every some hundred steps on all ranks at once",
    clues=(
        Clue(3.5, rises("process_gc_pause_seconds", 3.0, "garbage collection")),
        Clue(2.5, peaks("process_gc_pause_seconds", 0.1, "a garbage collection of seconds")),
        Clue(-2.5, steady("process_gc_pause_seconds", 1.5, "garbage collection")),
    ),
)
