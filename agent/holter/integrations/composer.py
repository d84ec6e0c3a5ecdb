"""Composer's logger: `Trainer(loggers=[HolterLogger(project="smol")])`, beside the loggers that are there."""

from __future__ import annotations

import time
from typing import Any

from composer.loggers import LoggerDestination

import holter
from holter.integrations.wrapping import either, harmless, renamed

_NAMES = {
    "loss/train/total": ("loss", 1.0),
    "l2_norm/grad/global": ("grad_norm", 1.0),
    "throughput/device/tokens_per_sec": ("tokens_per_second", 1.0),
    "throughput/device/mfu": ("mfu", 1.0),
}
_EVALUATION = "metrics/eval/"


class HolterLogger(LoggerDestination):
    """Every rank records each batch: Composer's mean loss over micro-batches and ranks, learning rate, the wait for data, and what other
    callbacks log; evaluations too. The gradient norm is there where Composer's `OptimizerMonitor` logs it.

    `obey_every`: obey the operator's advice to stop and to write a checkpoint (by the `CheckpointSaver`s that are there), on which all ranks
    agree every so many batches (the same number on all of them; see `Run.agreed_advice`).
    """

    def __init__(self, project: str | None = None, name: str | None = None, *, obey_every: int | None = None, **settings: Any) -> None:
        super().__init__()
        self._obey_every = obey_every
        self._advice = holter.Advice()
        self.run: holter.Run | None = None
        self._settings = {"project": project, "name": name, **settings}
        self._values: dict[str, Any] = {}
        self._idle_since = 0.0

    @harmless
    def fit_start(self, state: Any, logger: Any) -> None:
        self.run = self.run or holter.init(**self._settings)
        if self._obey_every:
            for callback in state.callbacks:
                either(callback, "save_interval", lambda: self._advice.checkpoint)
        if int(state.timestamp.batch):
            self.run.event("resume", step=int(state.timestamp.batch))

    def before_dataloader(self, state: Any, logger: Any) -> None:
        self._idle_since = time.monotonic()

    def after_dataloader(self, state: Any, logger: Any) -> None:
        self._values["data_wait_seconds"] = time.monotonic() - self._idle_since

    @harmless
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        found = {key.removeprefix(_EVALUATION): value for key, value in metrics.items() if key.startswith(_EVALUATION)}
        if found and self.run is not None:
            self.run.evaluation(step, {key: float(value) for key, value in found.items()})
        self._values.update(renamed({key: value for key, value in metrics.items() if not key.startswith(_EVALUATION)}, _NAMES))

    def batch_end(self, state: Any, logger: Any) -> None:
        """Loggers come after the other callbacks, and the timestamp counts this batch already. Whether to save is asked next."""
        self._record(state)
        if self.run is not None and self._obey_every:
            self._advice = self.run.agreed_advice(every=self._obey_every)
            if self._advice.stop:
                state.stop_training()

    @harmless
    def _record(self, state: Any) -> None:
        values, self._values = self._values, {}
        values["lr"] = state.optimizers[0].param_groups[0]["lr"]
        if self.run is not None:
            self.run.step(int(state.timestamp.batch), **values)

    @harmless
    def fit_end(self, state: Any, logger: Any) -> None:
        if self.run is not None:
            self.run.finish()
