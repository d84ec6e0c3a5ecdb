"""Megatron-LM, which has no callbacks: its `training_log`, which every rank calls at every iteration, is heard.

::

    from holter.integrations.megatron import watch
    watch(project="smol")       # before pretrain(...)

`holter.init` follows at the first iteration, when the ranks know their place in the mesh.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Mapping
from typing import Any

import holter
from holter.integrations.wrapping import after, before, renamed

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
_SAVED = (
    "iteration",
    "model",
    "optimizer",
    "opt_param_scheduler",
    "num_floating_point_operations_so_far",
    "checkpointing_context",
)


def watch(training: Any = None, *, obey_every: int | None = None, **settings: Any) -> Megatron:
    """Watch every iteration of `training` (the module `megatron.training.training`). Settings are those of `holter.init`.

    `obey_every`: obey the operator's advice to stop and to write a checkpoint, on which all ranks agree every so many iterations (the same
    number on all of them; see `Run.agreed_advice`).
    """
    return Megatron(training or importlib.import_module("megatron.training.training"), settings, obey_every)


class Megatron:
    """`run` is the run, from the first iteration on. A rank without the last pipeline stage has no loss, and records none."""

    def __init__(self, training: Any, settings: dict[str, Any], obey_every: int | None) -> None:
        self.run: holter.Run | None = None
        self._training = training
        self._settings = settings
        self._saved_at: int | None = None
        # By name: the order of the arguments has changed between releases.
        self._signature = inspect.signature(training.training_log)
        before(training, "train_step", self._begins)
        after(training, "training_log", self._logged)
        after(training, "save_checkpoint_and_time", self._saved)
        _hear_the_end(training, self)
        if obey_every:
            _obey(training, self, obey_every)

    def begun(self) -> holter.Run:
        if self.run is None:
            self.run = holter.init(**{"mesh": _mesh(), **self._settings})
        return self.run

    def _begins(self, _forward_step: object, data_iterator: Any, *_args: Any, **_kwargs: Any) -> None:
        """Megatron's own iterators ask the loader through `iterable`; a rank that reads no data has none."""
        run = self.begun()
        for reader in data_iterator if isinstance(data_iterator, list) else [data_iterator]:
            if hasattr(reader, "iterable") and not hasattr(reader, "_heard_by_holter"):
                reader._heard_by_holter = True
                reader.iterable = run.batches(reader.iterable)

    def _logged(self, _answer: object, *args: Any, **kwargs: Any) -> None:
        told = self._signature.bind(*args, **kwargs).arguments
        losses = {("loss" if key == "lm loss" else key): value for key, value in told["loss_dict"].items()}
        known = {key: told[key] for key in _NAMES if told.get(key) is not None}
        self.begun().step(told["iteration"], **_progress(self._training), **renamed(losses, {}), **renamed(known, _NAMES))

    def _saved(self, _answer: object, iteration: int, *_args: Any, **_kwargs: Any) -> None:
        self._saved_at = iteration
        self.begun().checkpoint(step=iteration)

    def save(self, told: Mapping[str, Any]) -> None:
        """As Megatron itself would at this iteration, unless it has, or was given no folder."""
        if told["iteration"] != self._saved_at and self._training.get_args().save:
            whole = [told[name] for name in _SAVED]
            self._training.save_checkpoint_and_time(*whole, train_data_iterator=told["train_data_iterator"])


def _hear_the_end(training: Any, megatron: Megatron) -> None:
    """An exit that Megatron decides itself (its duration, an interval, advice) is `sys.exit(0)` out of `train`."""
    train = training.train

    @functools.wraps(train)
    def heard(*args: Any, **kwargs: Any) -> Any:
        try:
            answer = train(*args, **kwargs)
        except SystemExit as ended:
            if megatron.run is not None and not ended.code:
                megatron.run.finish()
            raise
        if megatron.run is not None:
            megatron.run.finish()
        return answer

    training.train = heard


def _obey(training: Any, megatron: Megatron, every: int) -> None:
    decide = training.checkpoint_and_decide_exit
    signature = inspect.signature(decide)

    @functools.wraps(decide)
    def decided(*args: Any, **kwargs: Any) -> Any:
        exits = decide(*args, **kwargs)
        advice = megatron.begun().agreed_advice(every=every)
        if advice.checkpoint and not exits:
            megatron.save(signature.bind(*args, **kwargs).arguments)
        return exits or advice.stop

    training.checkpoint_and_decide_exit = decided


def _progress(training: Any) -> dict[str, int]:
    """What this rank's replica has read in the iteration, and where the data stands: a resume that repeats or skips data is seen by it."""
    if not hasattr(training, "get_args") or not hasattr(training, "get_num_microbatches"):
        return {}
    args = training.get_args()
    tokens = args.micro_batch_size * training.get_num_microbatches() * args.seq_length
    return {"tokens": tokens, "consumed_samples": args.consumed_train_samples}


def _mesh() -> dict[str, tuple[int, int]] | None:
    """This rank's place, where Megatron's groups are made; None where it cannot be told."""
    state = sys.modules.get("megatron.core.parallel_state")
    if state is None or not state.model_parallel_is_initialized():
        return None
    return {axis: (getattr(state, f"get_{name}_rank")(), getattr(state, f"get_{name}_world_size")()) for axis, name in _AXES.items()}
