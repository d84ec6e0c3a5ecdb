"""Ray Train's `report`, in the function that each worker runs: what it is told, Holter sees too.

::

    def train_func():
        run = watch(project="smol")     # from holter.integrations.ray import watch
        ...
        ray.train.report({"step": step, "loss": loss})
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

import holter
from holter.integrations.wrapping import after, renamed

_NAMES = {"train_loss": ("loss", 1.0), "learning_rate": ("lr", 1.0)}
_STEPS = ("step", "global_step", "training_iteration")


def watch(train: Any = None, **settings: Any) -> holter.Run:
    """Watch this worker. `train` is the module `ray.train`; the rank comes from its context. Settings are those of `holter.init`.

    A script must call `ray.train.report(...)`, not a `report` that it imported before. Call `run.finish()` at the function's end: a
    worker's process may outlive it.
    """
    train = train or importlib.import_module("ray.train")
    context = train.get_context()
    place = {"RANK": context.get_world_rank(), "LOCAL_RANK": context.get_local_rank(), "WORLD_SIZE": context.get_world_size()}
    run = holter.init(**{"environment": {**os.environ, **{key: str(value) for key, value in place.items()}}, **settings})

    def reported(_answer: object, metrics: Mapping[str, Any], checkpoint: Any = None, *_args: Any, **_kwargs: Any) -> None:
        step = next((metrics[key] for key in _STEPS if key in metrics), None)
        run.step(step, **renamed({key: value for key, value in metrics.items() if key not in _STEPS}, _NAMES))
        if checkpoint is not None:
            run.checkpoint(getattr(checkpoint, "path", None), step)

    after(train, "report", reported)
    return run
