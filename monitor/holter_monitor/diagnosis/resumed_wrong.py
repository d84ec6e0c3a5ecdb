"""The restart did not take up all of its state: data position, optimizer, scheduler."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, beside, happened, kind_is, says

RESUMED_WRONG = Cause(
    name="resumed_wrong",
    explains=("data_position", "loss_shift", "loss_spike", "loss_divergence", "loss_plateau", "reference_gap"),
    sentence="the restart did not take up all of its state",
    action="compare what was saved with what was loaded: optimizer moments, scheduler, data position, random state; resume once more from {rewind}",
    clues=(
        Clue(3.0, kind_is("data_position")),
        Clue(3.0, beside("data_position")),
        Clue(2.5, says("after", lambda after: after == "resume", "it began at the resume")),
        Clue(2.5, says("after", lambda after: after == "start", "the loss replays the run's beginning: the weights were not loaded")),
        Clue(2.0, happened("resume", before=300)),
        Clue(-1.0, beside("loss_spike")),
    ),
)
