"""torchtitan's `Trainer`: each rank's steps, wait for data and tokens, and what its metrics processor logs.

::

    from holter.integrations.torchtitan import watch
    watch(trainer, project="smol")      # before trainer.train()

Loss and gradient norm exist where torchtitan computes them, every `metrics.log_freq` steps: with `log_freq = 1` no step goes unseen.
"""

from __future__ import annotations

from typing import Any

import holter
from holter.integrations.wrapping import after, either, harmless, renamed

_NAMES = {
    "loss_metrics/global_avg_loss": ("loss", 1.0),
    "loss_metrics/global_max_loss": ("loss_max", 1.0),
    "grad_norm": ("grad_norm", 1.0),
    "throughput(tps)": ("tokens_per_second", 1.0),
    "mfu(%)": ("mfu", 0.01),
    "lr": ("lr", 1.0),
}
_MEASURED_OURSELVES = ("time_metrics/end_to_end(s)", "time_metrics/data_loading(s)", "time_metrics/data_loading(%)")
_VALIDATION = "validation_metrics/"


def watch(
    trainer: Any, *, project: str | None = None, name: str | None = None, obey_every: int | None = None, **settings: Any
) -> holter.Run:
    """Watch `trainer`, which has not begun to train. Settings are those of `holter.init`.

    `obey_every`: obey the operator's advice to stop and to write a checkpoint, on which all ranks agree every so many steps (the same number
    on all of them; see `Run.agreed_advice`).
    """
    run = holter.init(project, name, **settings)
    logger = HolterLogger(run, trainer.metrics_processor.logger)
    trainer.metrics_processor.logger = logger
    batches = trainer.batch_generator
    trainer.batch_generator = lambda loader: run.batches(batches(loader))
    seen = getattr(trainer, "ntokens_seen", 0)

    def stepped(_answer: object, *_args: object) -> None:
        nonlocal seen
        values = logger.take()
        before, seen = seen, getattr(trainer, "ntokens_seen", 0)
        # The counter grows only in versions that keep it for each rank.
        run.step(trainer.step, **({"tokens": seen - before} if seen > before else {}), **values)

    after(trainer, "train_step", stepped)
    if obey_every:
        _obey(trainer, run, obey_every)
    after(trainer, "train", lambda *_: run.finish())
    return run


def _obey(trainer: Any, run: holter.Run, every: int) -> None:
    """After a step torchtitan asks its checkpointer whether to save, and itself whether to go on."""
    advice, stops = holter.Advice(), False

    def agreed(*_: object) -> None:
        nonlocal advice, stops
        advice = run.agreed_advice(every=every)
        stops = stops or advice.stop

    goes_on = trainer.should_continue_training
    trainer.should_continue_training = lambda: goes_on() and not stops
    either(getattr(trainer, "checkpointer", None), "_should_save", lambda: advice.checkpoint)
    after(trainer, "train_step", agreed)


class HolterLogger:
    """torchtitan's `BaseLogger`, in front of the trainer's own: gathers what is logged until the step has ended."""

    def __init__(self, run: holter.Run, inner: Any) -> None:
        self._run, self._inner = run, inner
        self._values: dict[str, Any] = {}

    def log(self, metrics: dict[str, Any], step: int) -> None:
        self._inner.log(metrics, step)
        self._hear(metrics, step)

    @harmless
    def _hear(self, metrics: dict[str, Any], step: int) -> None:
        if any(key.startswith(_VALIDATION) for key in metrics):
            self._run.evaluation(step, {key.removeprefix(_VALIDATION): value for key, value in metrics.items()})
        else:
            self._values = renamed({key: value for key, value in metrics.items() if key not in _MEASURED_OURSELVES}, _NAMES)

    def take(self) -> dict[str, Any]:
        values, self._values = self._values, {}
        return values

    def close(self) -> None:
        """The trainer closes its metrics after a failure too; which it was, the run knows at the interpreter's exit."""
        self._inner.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
