"""torchtitan's calls by a stand-in with the signatures of release 0.3.0: `Trainer.train_step`, `batch_generator`, `MetricsProcessor.logger`."""

import itertools
from types import SimpleNamespace

import pytest


class Logger:
    def __init__(self):
        self.got, self.is_closed = [], False

    def log(self, metrics, step):
        self.got.append((step, metrics))

    def close(self):
        self.is_closed = True


class Checkpointer:
    def __init__(self):
        self.saved = []

    def save(self, curr_step, last_step=False):
        if self._should_save(curr_step, last_step):
            self.saved.append(curr_step)

    def _should_save(self, curr_step, last_step=False):
        return last_step


class Trainer:
    """The parts of the loop that the integration touches, in torchtitan's order."""

    def __init__(self):
        self.metrics_processor = SimpleNamespace(logger=Logger())
        self.step = self.ntokens_seen = 0
        self.steps = 6
        self.checkpointer = Checkpointer()

    def batch_generator(self, data_iterable):
        yield from data_iterable

    def train_step(self, data_iterator):
        self.ntokens_seen += len(next(data_iterator))
        if self.step % 2 == 0:
            metrics = {
                "loss_metrics/global_avg_loss": 8.0 / self.step,
                "grad_norm": 0.5,
                "mfu(%)": 40.0,
                "time_metrics/end_to_end(s)": 1.0,
                "memory/max_active(GiB)": 3.0,
            }
            self.metrics_processor.logger.log(metrics, self.step)

    def should_continue_training(self):
        return self.step < self.steps

    def train(self):
        batches = self.batch_generator([0] * 16 for _ in itertools.count())
        while self.should_continue_training():
            self.step += 1
            self.train_step(batches)
            self.checkpointer.save(self.step, last_step=self.step == self.steps)
        self.metrics_processor.logger.log({"validation_metrics/loss": 3.0}, self.step)

    def close(self):
        self.metrics_processor.logger.close()


def test_every_step_of_the_rank_and_what_is_logged(collector):
    from holter.integrations.torchtitan import watch

    trainer = Trainer()
    logger = trainer.metrics_processor.logger
    watch(trainer, project="p", name="n")
    trainer.train()
    trainer.close()
    collector.wait_for_event("rank_finished")
    collector.wait_for(lambda seen: len(seen.points("tokens")) == 6)
    assert collector.points("tokens") == [(step, 16.0) for step in range(1, 7)]
    assert len(collector.points("data_wait_seconds")) == 6
    assert collector.points("loss") == [(2, 4.0), (4, 2.0), (6, pytest.approx(8 / 6))]
    assert collector.points("mfu")[0] == (2, pytest.approx(0.4))
    assert collector.points("memory.max_active_GiB")[0] == (2, 3.0)
    assert collector.wait_for_event("eval")["attrs"]["metrics"] == {"loss": 3.0}
    assert len(logger.got) == 4
    assert logger.is_closed


def test_a_failed_training_is_not_called_finished(collector):
    from holter.integrations.torchtitan import watch

    trainer = Trainer()
    trainer.train_step = lambda _iterator: 1 / 0
    run = watch(trainer, project="p", name="n")
    with pytest.raises(ZeroDivisionError), run:
        trainer.train()
    assert collector.wait_for_event("rank_failed")["attrs"]["type"] == "ZeroDivisionError"


def test_advice_saves_after_the_step_and_ends_the_loop(collector):
    from holter.integrations.torchtitan import watch

    collector.advice = {"stop": True, "checkpoint": True}
    trainer = Trainer()
    trainer.steps = 10**9
    watch(trainer, project="p", name="n", obey_every=5)
    trainer.train()
    assert trainer.checkpointer.saved == [trainer.step]
    collector.wait_for_event("rank_finished")
