"""What a script logs to other tools, Holter sees too: once a step, and without a change to what the tools get."""

import sys
from types import SimpleNamespace

import holter
import pytest


@pytest.fixture
def run(collector):
    return holter.init(project="p", name="n")


def finished(run, collector):
    run.finish()
    collector.wait_for_event("rank_finished")


def test_a_step_logged_in_several_calls_is_one_step(run, collector, tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    writer = tensorboard.SummaryWriter(tmp_path / "logs")
    holter.tee(run, writer)
    for step in range(5):
        writer.add_scalar("train/loss", 1.0 / (step + 1), step)
        writer.add_scalar("train/learning_rate", 0.1, step)
    writer.close()
    finished(run, collector)
    collector.wait_for(lambda seen: len(seen.points("lr")) == 5)
    assert collector.points("loss") == [(step, 1.0 / (step + 1)) for step in range(5)]
    assert any((tmp_path / "logs").iterdir())


def test_writers_made_later_are_heard_where_the_class_is_imported(run, collector, tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    whole = tensorboard.writer.SummaryWriter.add_scalar
    try:
        holter.tee(run)
        with tensorboard.SummaryWriter(tmp_path / "logs") as writer:
            writer.add_scalar("loss", 2.0, 7)
    finally:
        tensorboard.writer.SummaryWriter.add_scalar = whole
    finished(run, collector)
    collector.wait_for(lambda seen: seen.points("loss"))
    assert collector.points("loss") == [(7, 2.0)]


def stand_in():
    """The calls of wandb, trackio and mlflow with their real signatures."""
    got = []

    def log(data, step=None, commit=None):
        got.append((dict(data), step))

    def log_metric(key, value, step=None, synchronous=None):
        got.append(({key: value}, step))

    def log_metrics(metrics, step=None, synchronous=None):
        got.append((dict(metrics), step))

    return SimpleNamespace(log=log, log_metric=log_metric, log_metrics=log_metrics, got=got)


def test_dictionaries_with_and_without_a_step(run, collector):
    tool = stand_in()
    holter.tee(run, tool)
    tool.log({"train/loss": 3.0, "sample": "text", "val/acc": 0.5}, step=3)
    tool.log_metric("loss", 2.0, step=4)
    tool.log_metrics(metrics={"grad_norm": 1.0}, step=4)
    tool.log({"loss": 1.0})
    finished(run, collector)
    collector.wait_for(lambda seen: len(seen.points("loss")) == 3)
    assert collector.points("loss")[:2] == [(3, 3.0), (4, 2.0)]
    assert collector.points("val.acc") == [(3, 0.5)]
    assert collector.points("grad_norm") == [(4, 1.0)]
    assert tool.got[0] == ({"train/loss": 3.0, "sample": "text", "val/acc": 0.5}, 3)


def test_nonsense_hurts_nobody(run, collector, caplog):
    tool = stand_in()
    holter.tee(run, tool, object())
    assert "cannot listen" in caplog.text
    tool.log({("a", 1): float("nan"), "b": [1, 2], "c": None}, step="seven")
    with pytest.raises(TypeError):
        tool.log()
    finished(run, collector)


def test_nothing_is_imported_for_it(run):
    before = set(sys.modules)
    holter.tee(run)
    assert not {name for name in set(sys.modules) - before if name.split(".")[0] in {"wandb", "mlflow", "trackio", "torch", "tensorboard"}}
