"""For loops that log to wandb, TensorBoard, MLflow or trackio already: what they log, Holter sees too, without a change to the loop.

::

    run = holter.init(project="smol")
    holter.tee(run)                     # once; wandb.log(...), writer.add_scalar(...) go on as before

Each step's values are gathered until the tool is told of a later step, so that a step logged in twenty calls is one step of the run.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holter.run import Run

_log = logging.getLogger("holter")
_OURS = {"learning_rate": "lr", "train_loss": "loss", "gradient_norm": "grad_norm", "tokens_per_sec": "tokens_per_second"}
_MEGATRON = {
    "learning-rate": "lr",
    "lm loss": "loss",
    "grad-norm": "grad_norm",
    "loss-scale": "loss_scale",
    "params-norm": "params_norm",
    "num-zeros": "grad_zeros",
    "samples vs steps": "consumed_samples",
    "batch-generator-time": "data_wait_seconds",  # of the slowest rank, with `--timing-log-level 2 --log-timers-to-tensorboard`
}
_BY_SAMPLES = " vs samples"
"""Megatron-LM writes its curves twice; the second time what stands for the step is a number of samples."""
_PREFIXES = ("train/", "training/", "optim/")


class Tee:
    """Passes on what the wrapped calls log. `flush` records the last step; `run.finish` does it too."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._step: int | None = None
        self._values: dict[str, Any] = {}

    def hear(self, step: object, values: Mapping[Any, Any]) -> None:
        """Some values of a step. What is no number is the tool's business alone."""
        number = step if isinstance(step, int) and not isinstance(step, bool) else None
        if number is None or number != self._step:
            self.flush()
        self._step = number
        found = {_name(str(key)): value for key, value in values.items() if _is_scalar(value)}
        self._values.update(found)
        if number is None:
            self.flush()

    def flush(self) -> None:
        if self._values:
            values, self._values = self._values, {}
            self._run.step(self._step, **values)
        self._step = None


def tee(run: Run, *objects: Any) -> Tee:
    """Listen to `objects` (a wandb run, a `SummaryWriter`, the modules `mlflow` or `trackio`); without any, to each of these tools that the
    script has imported. Never raises; what cannot be listened to is said once."""
    ear = Tee(run)
    for found in objects or _imported():
        try:
            _listen(found, ear)
        except Exception as error:  # noqa: BLE001  never raise into a training script
            _log.warning("holter cannot listen to %r (%s: %s); the training is not affected", found, type(error).__name__, error)
    finish = run.finish

    @functools.wraps(finish)
    def flushing(*args: Any, **kwargs: Any) -> Any:
        ear.flush()
        return finish(*args, **kwargs)

    run.finish = flushing  # type: ignore[method-assign]
    return ear


def _imported() -> list[Any]:
    modules = [sys.modules[name] for name in ("wandb", "mlflow", "trackio") if name in sys.modules]
    writers = sys.modules.get("torch.utils.tensorboard.writer")
    return [*modules, *([writers.SummaryWriter] if writers is not None else [])]


def _listen(found: Any, ear: Tee) -> None:
    """By the calls that it has: `log(values, step)`, `log_metric(s)`, `add_scalar(s)`."""
    calls: dict[str, Callable[..., None]] = {
        "log": _heard_log,
        "log_metrics": _heard_log,
        "log_metric": _heard_metric,
        "add_scalar": _heard_scalar,
        "add_scalars": _heard_scalars,
    }
    ours = [name for name in calls if callable(getattr(found, name, None))]
    if not ours:
        raise TypeError("it has none of " + ", ".join(calls))
    # A class's function receives the instance first; a bound method or a module's function does not.
    skips = 1 if isinstance(found, type) else 0
    for name in ours:
        _wrap(found, name, functools.partial(calls[name], ear), skips=skips)


def _wrap(owner: Any, name: str, hear: Callable[..., None], *, skips: int) -> None:
    call = getattr(owner, name)

    @functools.wraps(call)
    def heard(*args: Any, **kwargs: Any) -> Any:
        answer = call(*args, **kwargs)
        try:
            hear(*args[skips:], **kwargs)
        except Exception as error:  # noqa: BLE001  never raise into a training loop
            _log.debug("not heard: %s", error)
        return answer

    setattr(owner, name, heard)


def _heard_log(ear: Tee, values: Any = None, step: Any = None, *_more: Any, **named: Any) -> None:
    """`wandb.log(data, step)`, `trackio.log(metrics, step)`, `mlflow.log_metrics(metrics, step)`."""
    held = next((found for found in (values, named.get("data"), named.get("metrics")) if isinstance(found, Mapping)), None)
    if held is not None:
        ear.hear(step, held)


def _heard_metric(ear: Tee, key: str, value: Any, step: Any = None, *_more: Any, **_named: Any) -> None:
    ear.hear(step, {key: value})


def _heard_scalar(ear: Tee, tag: str, scalar_value: Any, global_step: Any = None, *_more: Any, **_named: Any) -> None:
    if not tag.endswith(_BY_SAMPLES):
        ear.hear(global_step, {tag: scalar_value})


def _heard_scalars(
    ear: Tee, main_tag: str, tag_scalar_dict: Mapping[str, Any], global_step: Any = None, *_more: Any, **_named: Any
) -> None:
    ear.hear(global_step, {f"{main_tag}/{tag}": value for tag, value in tag_scalar_dict.items()})


def _is_scalar(value: Any) -> bool:
    """A number, or a tensor or array of one element; looked at without touching its device."""
    if isinstance(value, int | float):
        return not isinstance(value, bool)
    count = getattr(value, "numel", None)
    return (callable(count) and count() == 1) or getattr(value, "size", None) == 1


def _name(key: str) -> str:
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix)
    return _OURS.get(key) or _MEGATRON.get(key) or key.replace("/", ".")
