"""OLMo-core's events by a stand-in for its base class and trainer, in the order and with the signatures of release 3.0.0."""

import sys
import time
from dataclasses import dataclass
from types import ModuleType

import pytest


@dataclass
class Callback:
    trainer = None

    @property
    def step(self):
        return self.trainer.global_step


class Trainer:
    cancel_check_interval = 5

    def __init__(self, callback, fails_at=None, steps=4):
        self.global_step, self.fails_at, self.recorded = 0, fails_at, []
        self.steps, self.is_canceled, self.reasons = steps, False, []
        self.callback = callback
        callback.trainer = self

    def record_metric(self, name, value, reduce_type=None, namespace=None, merge_strategy="warn"):
        self.recorded.append((name, value))

    def cancel_run(self, reason, no_sync=False):
        assert not no_sync, "a rank that stops alone leaves the others waiting"
        self.reasons.append(reason)

    def fit(self):
        self.callback.pre_train()
        try:
            for _ in range(self.steps):
                self._train_batch()
                # The ranks agree at these steps alone.
                self.is_canceled = bool(self.reasons) and self.global_step % self.cancel_check_interval == 0
                if self.is_canceled:
                    break
        except ValueError as error:
            self.callback.on_error(error)
            raise
        self.callback.post_checkpoint_saved("saved/step4")
        self.callback.post_train()

    def _train_batch(self):
        self.callback.pre_load_batch()
        self.global_step += 1
        self.callback.pre_step({})
        if self.global_step == self.fails_at:
            raise ValueError("a bad batch")
        self.record_metric("train/CE loss", 4.0 / self.global_step)
        self.record_metric("LR (group 0)", 0.1, namespace="optim")
        self.record_metric("throughput/device/MFU", 40.0)
        self.callback.post_step()


@pytest.fixture
def callback(monkeypatch, collector):
    for name in ("olmo_core", "olmo_core.train", "olmo_core.train.callbacks"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["olmo_core.train.callbacks"].Callback = Callback
    monkeypatch.delitem(sys.modules, "holter.integrations.olmo_core", raising=False)
    from holter.integrations.olmo_core import HolterCallback

    yield HolterCallback(project="p", name="n", obeys=True)
    sys.modules.pop("holter.integrations.olmo_core", None)


def test_what_is_recorded_is_the_row_of_its_step(callback, collector):
    trainer = Trainer(callback)
    trainer.fit()
    collector.wait_for_event("rank_finished")
    collector.wait_for(lambda seen: len(seen.points("loss")) == 4)
    assert collector.points("loss") == [(step, 4.0 / step) for step in range(1, 5)]
    assert collector.points("lr") == [(step, 0.1) for step in range(1, 5)]
    assert collector.points("mfu") == [(step, pytest.approx(0.4)) for step in range(1, 5)]
    assert len(collector.points("data_wait_seconds")) == 4
    assert collector.wait_for_event("checkpoint")["attrs"]["path"] == "saved/step4"
    assert len(trainer.recorded) == 12


def test_a_failure_is_told(callback, collector):
    with pytest.raises(ValueError, match="a bad batch"):
        Trainer(callback, fails_at=3).fit()
    assert collector.wait_for_event("rank_failed")["attrs"]["message"] == "a bad batch"


def test_the_advice_to_stop_cancels_the_run_on_all_ranks(callback, collector):
    collector.advice = {"stop": True, "reason": "loss divergence"}
    trainer = Trainer(callback, steps=3_000)
    slowly = trainer._train_batch
    trainer._train_batch = lambda: (time.sleep(0.01), slowly())
    trainer.fit()
    assert trainer.is_canceled and trainer.global_step < 3_000
    assert trainer.reasons[0] == "Holter advises to stop: loss divergence"
    collector.wait_for_event("rank_finished")


def test_without_advice_nobody_is_asked_to_stop(callback, collector):
    trainer = Trainer(callback)
    trainer.fit()
    assert trainer.reasons == [] and trainer.global_step == 4
