"""OLMo-core's callback: `trainer_config.with_callback("holter", HolterCallback(project="smol"))`.

OLMo-core hands metrics to callbacks late, in groups of `metrics_collect_interval` steps and averaged over the ranks. This one hears
`trainer.record_metric` instead: each rank's own values, at their step, still on their device.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, ClassVar

from olmo_core.train.callbacks import Callback

import holter
from holter.integrations.wrapping import after, harmless, renamed

_NAMES = {
    "train/CE loss": ("loss", 1.0),
    "optim/total grad norm": ("grad_norm", 1.0),
    "optim/LR (group 0)": ("lr", 1.0),
    "throughput/device/TPS": ("tokens_per_second", 1.0),
    "throughput/device/MFU": ("mfu", 0.01),
}


@dataclass
class HolterCallback(Callback):
    """Every rank records every step, its wait for data, checkpoints, resumes and failures. `settings` are those of `holter.init`.

    `obeys`: the operator's advice to stop cancels the run, on which OLMo-core has the ranks agree at its next `cancel_check_interval`.
    """

    priority: ClassVar[int] = -100
    """Last, so that what other callbacks record at a step's end still belongs to the step."""

    project: str | None = None
    name: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    obeys: bool = False

    _run: holter.Run | None = field(default=None, init=False, repr=False)
    _values: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    _idle_since: float = field(default=0.0, init=False, repr=False)

    def pre_train(self) -> None:
        self._run = holter.init(self.project, self.name, **self.settings)
        if self.step:
            self._run.event("resume", step=self.step)
        after(self.trainer, "record_metric", self._heard)

    def _heard(self, _answer: object, name: str, value: Any, *_args: Any, namespace: str | None = None, **_kwargs: Any) -> None:
        value = value.detach() if hasattr(value, "detach") else value
        self._values.update(renamed({f"{namespace}/{name}" if namespace else name: value}, _NAMES))

    def pre_load_batch(self) -> None:
        self._idle_since = time.monotonic()

    def pre_step(self, batch: dict[str, Any]) -> None:
        self._values["data_wait_seconds"] = time.monotonic() - self._idle_since

    @harmless
    def post_step(self) -> None:
        values, self._values = self._values, {}
        if self._run is not None:
            self._run.step(self.step, **values)
            advice = self._run.advice
            if self.obeys and advice.stop and not self.trainer.is_canceled:
                # Ranks hear the advice at different steps; without `no_sync` OLMo-core has them agree, and all stop at one step.
                self.trainer.cancel_run(f"Holter advises to stop: {advice.reason}")

    @harmless
    def post_checkpoint_saved(self, path: Any) -> None:
        if self._run is not None:
            self._run.checkpoint(path, self.step)

    @harmless
    def on_error(self, exc: BaseException) -> None:
        if self._run is not None:
            self._run.__exit__(type(exc), exc, None)

    @harmless
    def post_train(self) -> None:
        if self._run is not None:
            self._run.finish()
