"""Composer's events by a stand-in for its base class, in the order and with the signatures of release 0.32.1."""

import sys
from types import ModuleType, SimpleNamespace

import pytest


class LoggerDestination:
    def __init__(self, *args, **kwargs):
        pass


class State:
    """What the logger reads of Composer's; `CheckpointSaver.save_interval` is asked after each batch's end."""

    def __init__(self):
        self.timestamp = SimpleNamespace(batch=0)
        self.optimizers = [SimpleNamespace(param_groups=[{"lr": 0.1}])]
        self.callbacks = [SimpleNamespace(save_interval=lambda state, event: False), SimpleNamespace()]
        self.is_over = False

    def stop_training(self):
        self.is_over = True


@pytest.fixture
def logger(monkeypatch, collector):
    for name in ("composer", "composer.loggers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["composer.loggers"].LoggerDestination = LoggerDestination
    monkeypatch.delitem(sys.modules, "holter.integrations.composer", raising=False)
    from holter.integrations.composer import HolterLogger

    yield HolterLogger(project="p", name="n", obey_every=5)
    sys.modules.pop("holter.integrations.composer", None)


def test_each_batch_is_one_row_and_an_evaluation_is_declared(logger, collector):
    state = State()
    logger.fit_start(state, None)
    for batch in range(1, 5):
        logger.before_dataloader(state, None)
        logger.after_dataloader(state, None)
        logger.log_metrics({"loss/train/total": 4.0 / batch}, step=batch - 1)
        state.timestamp.batch = batch
        logger.log_metrics({"l2_norm/grad/global": 0.5, "time/batch": batch}, step=batch)
        logger.batch_end(state, None)
    logger.log_metrics({"metrics/eval/Accuracy": 0.75}, step=4)
    logger.fit_end(state, None)
    collector.wait_for_event("rank_finished")
    collector.wait_for(lambda seen: len(seen.points("loss")) == 4)
    assert collector.points("loss") == [(batch, 4.0 / batch) for batch in range(1, 5)]
    for metric, value in (("lr", 0.1), ("grad_norm", 0.5)):
        assert collector.points(metric) == [(batch, value) for batch in range(1, 5)], metric
    assert len(collector.points("data_wait_seconds")) == 4
    assert collector.wait_for_event("eval")["attrs"]["metrics"] == {"Accuracy": 0.75}


def test_advice_is_a_checkpoint_of_the_saver_s_and_composer_s_own_stop(logger, collector):
    collector.advice = {"stop": True, "checkpoint": True}
    state = State()
    logger.fit_start(state, None)
    saved = []
    while not state.is_over:
        state.timestamp.batch += 1
        logger.batch_end(state, None)
        if state.callbacks[0].save_interval(state, "batch_checkpoint"):
            saved.append(state.timestamp.batch)
    logger.fit_end(state, None)
    assert saved == [state.timestamp.batch]
    collector.wait_for_event("rank_finished")


def test_a_state_that_is_not_understood_disturbs_nothing(logger):
    logger.fit_start(SimpleNamespace(), None)
    logger.batch_end(SimpleNamespace(), None)
    logger.log_metrics({"metrics/eval/Accuracy": "high"})
