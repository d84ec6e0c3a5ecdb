"""Something outside the run deleted its checkpoints: a launch script that clears the folder, a retention job with a wrong rule."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, beside, says

DELETED_CHECKPOINT = Cause(
    name="deleted_checkpoint",
    explains=("checkpoint_lost",),
    sentence="checkpoints were deleted from outside the run, the newest among them",
    action="find what deletes there (rm in the launch script, a retention job), stop it, write a checkpoint now and copy it elsewhere",
    clues=(
        Clue(6.0, says("disappeared", lambda count: count > 0, "{value} whole checkpoints disappeared, the newest among them")),
        Clue(-3.0, says("steps_again", lambda steps: steps > 0, "the attempt itself began before it")),
        Clue(-1.5, beside("disk_pressure")),
    ),
)
