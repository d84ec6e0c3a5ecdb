"""A DeepSpeed engine, which has no step callback: its `backward`, `step`, `train_batch` and `save_checkpoint` are heard.

::

    engine, *_ = deepspeed.initialize(...)
    run = watch(engine, project="smol")     # from holter.integrations.deepspeed import watch

Every rank records its optimizer steps: the mean loss of the step's micro-batches, the gradient norm as DeepSpeed has it (none where ZeRO
does not compute it), learning rate, and whether the step was skipped. What the engine writes to its monitor on rank 0 goes with the step.
"""

from __future__ import annotations

from typing import Any

import holter
from holter.integrations.wrapping import after, renamed

_NAMES = {
    "Train/Samples/lr": ("lr", 1.0),
    "Train/Samples/loss_scale": ("loss_scale", 1.0),
    **{
        f"Train/Samples/elapsed_time_ms_{part}": (f"section_{part}_seconds", 1e-3)
        for part in ("forward", "backward", "backward_inner", "backward_allreduce", "step")
    },
}


def watch(engine: Any, *, project: str | None = None, name: str | None = None, **settings: Any) -> holter.Run:
    """Watch `engine`. Settings are those of `holter.init`; call `run.finish()` at the end of the training."""
    heard = _Engine(engine, holter.init(project, name, **settings))
    if hasattr(engine, "train_batch"):  # a pipeline's engine steps inside of it
        after(engine, "train_batch", heard.trained)
    else:
        after(engine, "backward", heard.went_backward)
        after(engine, "step", heard.stepped)
    after(engine, "save_checkpoint", heard.saved)
    after(getattr(engine, "monitor", None), "write_events", heard.wrote)
    return heard.run


class _Engine:
    def __init__(self, engine: Any, run: holter.Run) -> None:
        self.run = run
        self._engine = engine
        self._recorded = engine.global_steps
        self._losses: list[Any] = []
        self._written: dict[str, Any] = {}

    def went_backward(self, _answer: object, loss: Any, *_args: Any, **_kwargs: Any) -> None:
        self._losses.append(loss.detach())

    def stepped(self, _answer: object, *_args: Any, **_kwargs: Any) -> None:
        # `step` is called for each micro-batch; the counter moves with the optimizer.
        if self._engine.global_steps != self._recorded:
            losses, self._losses = self._losses, []
            # Empty where the script calls `loss.backward()` itself, as newer releases allow.
            self._record(sum(losses[1:], losses[0]) / len(losses) if losses else None)

    def trained(self, loss: Any, *_args: Any, **_kwargs: Any) -> None:
        self._record(loss)

    def wrote(self, _answer: object, events: Any) -> None:
        self._written.update(renamed({name: value for name, value, *_ in events}, _NAMES))

    def saved(self, _answer: object, save_dir: Any, *_args: Any, **_kwargs: Any) -> None:
        self.run.checkpoint(save_dir, self._engine.global_steps)

    def _record(self, loss: Any) -> None:
        engine = self._engine
        self._recorded = engine.global_steps
        written, self._written = self._written, {}
        applied = engine.was_step_applied()
        # The norm of a skipped step is what overflowed while the loss scale was found: no sick gradient.
        norm = engine.get_global_grad_norm() if applied else None
        values = {"loss": loss, "grad_norm": norm, "lr": engine.get_lr()[0], "skipped": int(not applied)}
        self.run.step(engine.global_steps, **{**written, **{key: value for key, value in values.items() if value is not None}})
