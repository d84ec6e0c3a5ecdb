"""The optimisation itself goes wrong: gradients or updates grew before the loss did."""

from __future__ import annotations

from holter_monitor.diagnosis.case import Case
from holter_monitor.diagnosis.cause import Cause, Clue, beside, happened, kind_is, rises, says


def _precursor(case: Case) -> str | None:
    """Gradients or updates that rose in the ten steps before the loss did."""
    for metric, name in (("update_norm", "update norm"), ("grad_norm", "gradient norm")):
        signal = case.signals.get(metric)
        if signal is not None and signal.leading is not None and signal.before > 0 and signal.leading > 2.5 * signal.before:
            return f"{name} rose to {signal.leading:.3g} (usual: {signal.before:.3g}) before the loss did"
    return None


INSTABILITY = Cause(
    name="instability",
    explains=("loss_divergence", "loss_spike", "loss_shift", "grad_explosion", "non_finite", "loss_noise"),
    sentence="the optimisation is unstable: it does not come back by itself",
    action="rewind to {rewind}, skip the batches from step {onset} on, and go on with a lower learning rate or tighter gradient clipping",
    clues=(
        Clue(2.0, kind_is("loss_divergence")),
        Clue(2.0, says("shape", lambda shape: shape in ("diverging", "shift"), "the loss does not come back: {value}")),
        Clue(2.0, _precursor),
        Clue(1.0, beside("loss_divergence", "grad_explosion")),
        Clue(1.0, rises("grad_norm", 3.0, "gradient norm")),
        Clue(0.8, beside("loss_spike")),
        Clue(-1.5, rises("lr", 2.0, "learning rate")),
        Clue(-1.5, happened("lr_change", before=50)),
        Clue(-1.5, says("shape", lambda shape: shape == "isolated", "the loss came back at once")),
    ),
)
