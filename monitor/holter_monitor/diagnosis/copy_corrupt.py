"""The copy of a checkpoint has the size of the original and other bytes."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, says

COPY_CORRUPT = Cause(
    name="copy_corrupt",
    explains=("checkpoint_overdue",),
    sentence="the copy is corrupt: of the same size, with other bytes",
    action="do not resume from the copy; copy it again, compare all of it (HOLTER_CHECKPOINT_CHECK=all), mistrust the way and the target until it is equal",
    clues=(Clue(4.0, says("copy_state", lambda state: "differs between" in state, "{value}")),),
)
