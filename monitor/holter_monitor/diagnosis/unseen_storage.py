"""The storage of the checkpoints does not answer the node agent that watches it."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, says

UNSEEN_STORAGE = Cause(
    name="unseen_storage",
    explains=("checkpoint_overdue",),
    sentence="the place of the checkpoints does not answer the node agent",
    action="look at it from the first rank's node (ls; the mount, the credentials, the store's status): the run itself may not be able to save either",
    clues=(Clue(4.0, says("unseen", bool, "{value}")),),
)
