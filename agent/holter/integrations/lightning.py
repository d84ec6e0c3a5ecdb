"""Lightning's callbacks, as calls of the run: `Trainer(callbacks=[HolterCallback(project="smol")])`.

Works with `lightning` and with `pytorch_lightning`, whichever the script has imported.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import holter
from holter.integrations.naming import BatchNames

if TYPE_CHECKING:
    Callback = object
elif "pytorch_lightning" in sys.modules and "lightning" not in sys.modules:
    from pytorch_lightning import Callback
else:
    from lightning.pytorch import Callback


class HolterCallback(Callback):
    """Records each optimizer step of each rank: loss, gradient norm before clipping, learning rate, wait for data, validation, checkpoints.

    `loss` is the mean over the micro-batches of a step. `tokens_of(batch) -> int` tells how many tokens a batch holds; without it tokens
    are not recorded. `obey_every`: obey the operator's advice to stop and to write a checkpoint, on which all ranks agree every so many
    steps (the same number on all of them; see `Run.agreed_advice`).
    """

    def __init__(
        self, project: str | None = None, name: str | None = None, *, tokens_of: Any = None, obey_every: int | None = None, **settings: Any
    ) -> None:
        super().__init__()
        self._obey_every = obey_every
        self.run: holter.Run | None = None
        self._settings = {"project": project, "name": name, **settings}
        self._tokens_of = tokens_of
        self._idle_since = 0.0
        self._values: dict[str, Any] = {}
        self._recorded = -1
        self._names = BatchNames()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.run = holter.init(**self._settings)
        self._recorded = trainer.global_step
        if trainer.global_step:
            self.run.event("resume", step=trainer.global_step)
        self._idle_since = time.monotonic()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._values["data_wait_seconds"] = self._values.get("data_wait_seconds", 0.0) + time.monotonic() - self._idle_since
        if self._tokens_of is not None:
            self._values["tokens"] = self._values.get("tokens", 0) + self._tokens_of(batch)
        if trainer.global_rank == 0 and (tensor := _first_tensor(batch)) is not None:
            self._names.add(tensor, self._values)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self._values["lr"] = optimizer.param_groups[0]["lr"]
        self._values["grad_norm"] = _norm(pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is not None:
            # Lightning has divided it by accumulate_grad_batches already, so that the sum is the step's mean.
            held = self._values.get("loss")
            self._values["loss"] = loss.detach() if held is None else held + loss.detach()
        if trainer.global_step != self._recorded and self.run is not None:
            self._recorded = trainer.global_step
            values, self._values = self._values, {}
            self.run.step(trainer.global_step, **values)
            if self._obey_every:
                self._obey(trainer, self.run.agreed_advice(every=self._obey_every))
        self._idle_since = time.monotonic()

    def _obey(self, trainer: Any, advice: holter.Advice) -> None:
        if advice.checkpoint:
            # As at any checkpoint of Lightning's, all ranks are here, and what goes wrong is not hidden: the others would wait.
            folder = getattr(trainer.checkpoint_callback, "dirpath", None) or trainer.default_root_dir
            trainer.save_checkpoint(Path(str(folder)) / f"advised-step={trainer.global_step}.ckpt")
        trainer.should_stop |= advice.stop

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if self.run is not None and not trainer.sanity_checking:
            metrics = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val")}
            self.run.evaluation(trainer.global_step, metrics)
        self._idle_since = time.monotonic()

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if self.run is not None:
            self.run.checkpoint(getattr(trainer.checkpoint_callback, "dirpath", None), trainer.global_step)
        self._idle_since = time.monotonic()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if self.run is not None:
            self.run.__exit__(type(exception), exception, None)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self.run is not None:
            self.run.finish()


def _first_tensor(batch: Any) -> Any:
    if hasattr(batch, "detach"):
        return batch
    within = list(batch.values()) if hasattr(batch, "values") else batch if isinstance(batch, list | tuple) else ()
    return next((found for part in within[:8] if (found := _first_tensor(part)) is not None), None)


def _norm(module: Any) -> Any:
    """The total gradient norm, left on its device."""
    import torch

    grads = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(grads) if grads else None
