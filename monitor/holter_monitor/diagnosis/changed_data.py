"""Another data mix, another order, another stage."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, happened, kind_is, rises, steady

CHANGED_DATA = Cause(
    name="changed_data",
    explains=("loss_shift", "loss_noise", "loss_spike", "loss_divergence"),
    sentence="the data changed: another mix, another order or another stage",
    action="compare the batches before and after: documents per batch, sources, order; sequences that are not shuffled make long documents fill batches",
    clues=(
        Clue(3.0, happened("data_stage_change", "stage", before=300)),
        Clue(1.2, kind_is("loss_noise")),
        Clue(0.5, steady("lr", 1.2, "learning rate")),
        Clue(-1.5, rises("lr", 2.0, "learning rate")),
    ),
)
