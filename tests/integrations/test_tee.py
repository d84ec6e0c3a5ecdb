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


def test_megatron_s_writer_speaks_of_steps_alone(run, collector):
    """The tags of `training_log` and of its timers, in their order: the curves over samples would be steps that never were."""
    got = []
    writer = SimpleNamespace(add_scalar=lambda tag, scalar_value, global_step=None: got.append((tag, global_step)))
    holter.tee(run, writer)
    for iteration in range(1, 4):
        samples = iteration * 512
        for tag, value in (("learning-rate", 0.1), ("lm loss", 3.0 / iteration), ("grad-norm", 0.5)):
            writer.add_scalar(tag, value, iteration)
            writer.add_scalar(f"{tag} vs samples", value, samples)
        writer.add_scalar("batch-generator-time", 0.02, iteration)
    finished(run, collector)
    collector.wait_for(lambda seen: len(seen.points("loss")) == 3)
    assert collector.points("loss") == [(1, 3.0), (2, 1.5), (3, 1.0)]
    for metric, value in (("lr", 0.1), ("grad_norm", 0.5), ("data_wait_seconds", 0.02)):
        assert collector.points(metric) == [(step, pytest.approx(value)) for step in (1, 2, 3)], metric
    assert len(got) == 21


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
