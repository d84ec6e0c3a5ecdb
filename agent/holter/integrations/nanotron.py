"""nanotron's `DistributedTrainer`: every rank's every step, not only what the logging ranks print.

::

    from holter.integrations.nanotron import watch
    watch(trainer, project="smol")      # before trainer.train(dataloader)
"""

from __future__ import annotations

import functools
from typing import Any

import holter
from holter.integrations.wrapping import after

_AXES = {"dp": "dp_pg", "tp": "tp_pg", "pp": "pp_pg"}


def watch(trainer: Any, *, project: str | None = None, name: str | None = None, **settings: Any) -> holter.Run:
    """Watch `trainer`, which has not begun to train. Settings are those of `holter.init`; the mesh is read from the trainer."""
    groups = {axis: getattr(trainer.parallel_context, attribute, None) for axis, attribute in _AXES.items()}
    mesh = {axis: (group.rank(), group.size()) for axis, group in groups.items() if group is not None}
    run = holter.init(project, name, **{"mesh": mesh, **settings})
    _time_the_wait(trainer, run)

    def stepped(answer: Any, *_args: Any, **_kwargs: Any) -> None:
        # `(outputs, loss)`, with more behind in newer releases; None off the last pipeline stage.
        values = {
            "loss": answer[1],
            "grad_norm": getattr(trainer, "grad_norm_unclipped", None),
            "lr": trainer.lr_scheduler.get_last_lr()[0],
        }
        tokens = trainer.micro_batch_size * trainer.n_micro_batches_per_batch * trainer.sequence_length
        run.step(trainer.iteration_step, tokens=tokens, **{key: value for key, value in values.items() if value is not None})

    after(trainer, "training_step", stepped)

    def saved(path: object, *_args: Any) -> None:
        run.checkpoint(path, trainer.iteration_step)

    after(trainer, "save_checkpoint", saved)
    after(trainer, "post_training", lambda *_: run.finish())
    return run


def _time_the_wait(trainer: Any, run: holter.Run) -> None:
    training_step = trainer.training_step

    @functools.wraps(training_step)
    def timed(dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        return training_step(*args, dataloader=run.batches(dataloader), **kwargs)

    trainer.training_step = timed
