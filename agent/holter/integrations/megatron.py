"""Megatron-LM, which has no callbacks: its `training_log`, which every rank calls at every iteration, is heard.

::

    from holter.integrations.megatron import watch
    watch(project="smol")       # before pretrain(...)

`holter.init` follows at the first iteration, when the ranks know their place in the mesh.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import Any

import holter
from holter.integrations.wrapping import after, renamed

_AXES = {"dp": "data_parallel", "tp": "tensor_model_parallel", "pp": "pipeline_model_parallel"}
_NAMES = {
    "learning_rate": ("lr", 1.0),
    "grad_norm": ("grad_norm", 1.0),
    "params_norm": ("params_norm", 1.0),
    "num_zeros_in_grad": ("grad_zeros", 1.0),
    "loss_scale": ("loss_scale", 1.0),
    "skipped_iter": ("skipped", 1.0),
    "max_attention_logit": ("max_attention_logit", 1.0),
}


def watch(training: Any = None, **settings: Any) -> Megatron:
    """Watch every iteration of `training` (the module `megatron.training.training`). Settings are those of `holter.init`."""
    return Megatron(training or importlib.import_module("megatron.training.training"), settings)


class Megatron:
    """`run` is the run, from the first iteration on. A rank without the last pipeline stage has no loss, and records none."""

    def __init__(self, training: Any, settings: dict[str, Any]) -> None:
        self.run: holter.Run | None = None
        self._settings = settings
        # By name: the order of the arguments has changed between releases.
        self._signature = inspect.signature(training.training_log)
        after(training, "training_log", self._logged)
        after(training, "save_checkpoint_and_time", self._saved)
        after(training, "train", self._ended)

    def _logged(self, _answer: object, *args: Any, **kwargs: Any) -> None:
        told = self._signature.bind(*args, **kwargs).arguments
        if self.run is None:
            self.run = holter.init(**{"mesh": _mesh(), **self._settings})
        losses = {("loss" if key == "lm loss" else key): value for key, value in told["loss_dict"].items()}
        known = {key: told[key] for key in _NAMES if told.get(key) is not None}
        self.run.step(told["iteration"], **renamed(losses, {}), **renamed(known, _NAMES))

    def _saved(self, _answer: object, iteration: int, *_args: Any, **_kwargs: Any) -> None:
        if self.run is not None:
            self.run.checkpoint(step=iteration)

    def _ended(self, _answer: object, *_args: Any, **_kwargs: Any) -> None:
        if self.run is not None:
            self.run.finish()


def _mesh() -> dict[str, tuple[int, int]] | None:
    """This rank's place, where Megatron's groups are made; None where it cannot be told."""
    state = sys.modules.get("megatron.core.parallel_state")
    if state is None or not state.model_parallel_is_initialized():
        return None
    return {axis: (getattr(state, f"get_{name}_rank")(), getattr(state, f"get_{name}_world_size")()) for axis, name in _AXES.items()}
