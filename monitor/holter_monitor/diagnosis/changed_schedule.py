"""Somebody (or the schedule) changed the learning rate or the batch."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, happened, rises, steady

CHANGED_SCHEDULE = Cause(
    name="changed_schedule",
    explains=("loss_spike", "loss_divergence", "loss_shift", "grad_explosion", "loss_noise", "loss_plateau", "non_finite"),
    sentence="the learning rate or the batch size changed just before",
    action="take the change back, or warm up to it; rewind to {rewind} if the loss does not come back",
    clues=(
        Clue(3.5, rises("lr", 2.0, "learning rate")),
        Clue(2.5, happened("lr_change", before=100)),
        Clue(1.8, happened("batch_size_change", "seq_len_change", before=100)),
        Clue(-2.0, steady("lr", 1.2, "learning rate")),
    ),
)
