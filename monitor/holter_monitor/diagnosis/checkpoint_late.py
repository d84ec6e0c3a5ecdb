"""The checkpoint or evaluation that should have come did not."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, beside, kind_is, says

CHECKPOINT_LATE = Cause(
    name="checkpoint_late",
    explains=("checkpoint_overdue", "eval_overdue", "checkpoint_lost"),
    sentence="what should have been saved or evaluated by now has not been",
    action="look at the job that should have brought it (its log, its queue, the space on its target); a checkpoint save by hand before anything else",
    clues=(
        Clue(3.0, kind_is("checkpoint_overdue")),
        Clue(3.0, kind_is("eval_overdue")),
        Clue(4.0, says("steps_again", lambda steps: steps > 0, "{value} steps would have to be trained again")),
        Clue(-1.5, beside("disk_pressure")),
        Clue(-2.0, beside("hang")),
        Clue(-6.0, says("copy_place", bool, "the checkpoint itself is there")),
        Clue(-6.0, says("unseen", bool, "nobody can see whether it is there")),
    ),
)
