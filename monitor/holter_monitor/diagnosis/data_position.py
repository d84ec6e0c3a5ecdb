"""The stalls travel with the position in the data, whatever it runs on: an index, a shard, a document."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, beside, kind_is, says

DATA_POSITION = Cause(
    name="data_position",
    explains=("step_locked_stalls", "throughput_drop", "throughput_stalls", "data_stall"),
    sentence="the stalls belong to positions in the data, not to hardware: they come back at the same steps in another attempt",
    action="do not drain nodes. Look at what the loader does at these steps: index blocks, shard borders, shared memory that grows with the run's length",
    clues=(
        Clue(4.0, kind_is("step_locked_stalls")),
        Clue(3.5, beside("step_locked_stalls")),
        Clue(1.0, says("recurring", lambda count: count >= 5, "{value} stall steps repeat")),
        Clue(1.0, says("expected_by_chance", lambda count: count < 1, "{value} repeats expected by chance")),
    ),
)
