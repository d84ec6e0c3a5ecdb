"""A real Composer training where Composer is installed (`test_releases.py` does); a stand-in for its base class, in the order and with the
signatures of release 0.32.1, for what it does not show."""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
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


class Unused(ModuleType):
    """What Composer imports for models of vision and for its platform, and this training does not use: every name in it is an empty class."""

    __path__ = ()

    def __init__(self, name):
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None, is_package=True)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@pytest.fixture
def composer(monkeypatch):
    if importlib.util.find_spec("composer") is None:
        pytest.skip("Composer is not installed")
    parts = ("", ".transforms", ".transforms.functional", ".datasets", ".models", ".models.resnet", ".utils", ".ops")
    for name in ["mcli", *(f"torchvision{part}" for part in parts)]:
        monkeypatch.setitem(sys.modules, name, Unused(name))
    return pytest.importorskip("composer")


def test_a_real_training_is_recorded_and_obeys(composer, collector, tmp_path):
    import torch
    from composer.callbacks import CheckpointSaver
    from holter.integrations.composer import HolterLogger

    class Line(composer.ComposerModel):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def forward(self, batch):
            return self.layer(batch[0])

        def loss(self, outputs, batch):
            return (outputs - batch[1]).pow(2).mean()

    collector.advice = {"stop": True, "checkpoint": True}
    model, rows = Line(), torch.randn(64, 4)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(rows, rows.sum(1, keepdim=True)), batch_size=8)
    trainer = composer.Trainer(
        model=model,
        train_dataloader=loader,
        optimizers=torch.optim.SGD(model.parameters(), lr=0.01),
        max_duration="1000000ba",
        device="cpu",
        loggers=[HolterLogger(project="p", name="n", obey_every=5)],
        callbacks=[CheckpointSaver(folder=str(tmp_path / "saved"), filename="at-{batch}.pt", save_interval="1000000ba")],
        progress_bar=False,
    )
    trainer.fit()
    last = int(trainer.state.timestamp.batch)
    collector.wait_for_event("rank_finished", 60)
    collector.wait_for(lambda seen: len(seen.points("loss")) == last, 60)
    assert [step for step, _ in collector.points("loss")] == list(range(1, last + 1))
    for metric in ("lr", "data_wait_seconds"):
        assert len(collector.points(metric)) == last, metric
    assert (tmp_path / "saved" / f"at-{last}.pt").exists()
