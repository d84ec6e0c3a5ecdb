"""Checkpoints are written where they should be, and do not reach the second place that should hold them, too."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, says

COPY_LATE = Cause(
    name="copy_late",
    explains=("checkpoint_overdue",),
    sentence="the checkpoint is whole and its copy has not arrived",
    action="look at the uploader (its log, its queue, its rights at the target), copy it by hand, and delete nothing here until the copy is verified",
    clues=(
        Clue(4.0, says("copy_place", bool, "it is whole at its first place and not at {value}")),
        Clue(-3.0, says("copy_state", lambda state: "differs between" in state, "the copy is all there")),
    ),
)
