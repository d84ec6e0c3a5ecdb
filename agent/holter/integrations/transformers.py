"""transformers' `Trainer` (and what is built on it, such as TRL): its callbacks, as calls of the run.

::

    from holter.integrations.transformers import watch
    watch(trainer)            # before trainer.train()

Sees every step of every rank: the loss that this rank's `training_step` returned (NaN too, whatever `logging_nan_inf_filter` hides in
the logs), the gradient norm before clipping, the learning rate, the tokens, the wait for data, evaluations and checkpoints.
`HolterCallback` may also be given to the `Trainer` alone (`callbacks=[HolterCallback()]`); then loss and gradient norm come from the
Trainer's own logs, every `logging_steps`, averaged over ranks and filtered as they are.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

import holter
from holter.integrations.naming import BatchNames

_log = logging.getLogger("holter")
_CONFIG = (
    "learning_rate",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_steps",
    "num_train_epochs",
    "seed",
    "bf16",
    "fp16",
    "optim",
)
_LOGGED = {"loss": "loss", "grad_norm": "grad_norm"}


def watch(
    trainer: Any, *, project: str | None = None, name: str | None = None, obey_every: int | None = None, **settings: Any
) -> HolterCallback:
    """Watch `trainer`, which has not begun to train. Settings are those of `holter.init`; returns the callback, whose `run` is the run.

    `obey_every`: obey the operator's advice to stop and to write a checkpoint, on which all ranks agree every so many steps (the same number
    on all of them; see `Run.agreed_advice`).
    """
    callback = HolterCallback(project=project, name=name, obey_every=obey_every, **settings)
    trainer.add_callback(callback)
    _hear_losses(trainer, callback)
    _hear_norms(trainer, callback)
    return callback


class HolterCallback(TrainerCallback):
    """Translates the Trainer's events. Keeps nothing but the run and what the step under way has shown so far."""

    def __init__(self, project: str | None = None, name: str | None = None, *, obey_every: int | None = None, **settings: Any) -> None:
        self.run: holter.Run | None = None
        self._obey_every = obey_every
        self.hears_losses = False
        self._settings = {"project": project, "name": name, **settings}
        self._idle_since: float | None = None
        self._values: dict[str, Any] = {}
        self._names = BatchNames()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        settings = dict(self._settings)
        settings["config"] = {**{key: _plain(getattr(args, key, None)) for key in _CONFIG}, **(settings.get("config") or {})}
        settings["name"] = settings["name"] or getattr(args, "run_name", None) or Path(str(args.output_dir)).name
        self.run = holter.init(**settings)
        if state.global_step:
            self.run.event("resume", step=state.global_step)
        self._idle_since = time.monotonic()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._idle_since is not None:
            self._values["data_wait_seconds"] = time.monotonic() - self._idle_since

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        optimizer = kwargs.get("optimizer")
        if optimizer is not None:
            self._values["lr"] = optimizer.param_groups[0]["lr"]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        values, self._values = self._values, {}
        if self.run is not None:
            self.run.step(state.global_step, **values)
            if self._obey_every:
                advice = self.run.agreed_advice(every=self._obey_every)
                control.should_training_stop |= advice.stop
                control.should_save |= advice.checkpoint
        self._idle_since = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if self.run is not None and not self.hears_losses and logs and "loss" in logs:
            self.run.step(state.global_step, **{ours: logs[theirs] for theirs, ours in _LOGGED.items() if theirs in logs})
        self._idle_since = time.monotonic()

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if self.run is not None:
            self.run.evaluation(state.global_step, {key: _plain(value) for key, value in (metrics or {}).items()})
        self._idle_since = time.monotonic()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.run is not None:
            self.run.checkpoint(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}", state.global_step)
        self._idle_since = time.monotonic()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.run is not None:
            self.run.finish()

    def heard_loss(self, loss: Any, inputs: Any) -> None:
        """One micro-step's loss, already divided as the Trainer adds it up, and the batch that it was made from."""
        loss = loss.detach()
        held = self._values.get("loss")
        self._values["loss"] = loss if held is None else held + loss
        ids = inputs.get("input_ids") if hasattr(inputs, "get") else None
        if ids is not None and hasattr(ids, "numel"):
            self._values["tokens"] = self._values.get("tokens", 0) + ids.numel()
            if self.run is not None and self.run.rank == 0:
                self._names.add(ids, self._values)

    def heard_norm(self, norm: Any) -> None:
        self._values["grad_norm"] = norm.detach() if hasattr(norm, "detach") else norm


def _hear_losses(trainer: Any, callback: HolterCallback) -> None:
    training_step = trainer.training_step

    def heard(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = training_step(model, inputs, *args, **kwargs)
        try:
            callback.heard_loss(loss, inputs)
        except Exception as error:  # noqa: BLE001  never raise into a training loop
            _log.debug("the loss of a micro-step was not heard: %s", error)
        return loss

    trainer.training_step = heard
    callback.hears_losses = True


def _hear_norms(trainer: Any, callback: HolterCallback) -> None:
    accelerator = getattr(trainer, "accelerator", None)
    clip = getattr(accelerator, "clip_grad_norm_", None)
    if accelerator is None or clip is None:
        return

    def heard(*args: Any, **kwargs: Any) -> Any:
        norm = clip(*args, **kwargs)
        if norm is not None:
            callback.heard_norm(norm)
        return norm

    accelerator.clip_grad_norm_ = heard


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str | type(None)) else str(value)
