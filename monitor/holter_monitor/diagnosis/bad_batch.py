"""A few batches are bad: garbage, one long low-quality document, a broken shard."""

from __future__ import annotations

from holter_monitor.diagnosis.case import Case
from holter_monitor.diagnosis.cause import Cause, Clue, beside, happened, rises, says, steady


def _sudden(case: Case) -> str | None:
    """The gradient was calm until the very step: nothing built up."""
    signal = case.signals.get("grad_norm")
    if signal is None or signal.leading is None or signal.before <= 0 or signal.leading > 2.0 * signal.before:
        return None
    return "the gradient was calm until the very step"


BAD_BATCH = Cause(
    name="bad_batch",
    explains=("loss_spike", "grad_explosion", "loss_noise", "non_finite"),
    sentence="a few batches around step {onset} are bad",
    action="look at the batches of steps {onset} to {end}; if the loss does not come back, rewind to {rewind} and skip them",
    clues=(
        Clue(1.5, says("shape", lambda shape: shape in ("isolated", "recovered", "recovering"), "the loss came back: {value}")),
        Clue(1.2, rises("grad_norm", 3.0, "gradient norm")),
        Clue(1.0, steady("lr", 1.2, "learning rate")),
        Clue(0.8, _sudden),
        Clue(-2.5, rises("lr", 2.0, "learning rate")),
        Clue(-2.5, happened("lr_change", before=20)),
        Clue(-1.0, says("shape", lambda shape: shape in ("diverging", "shift"), "the loss does not come back: {value}")),
        Clue(-1.5, beside("gpu_error")),
    ),
)
