"""A real Lightning Trainer: each optimizer step's mean loss, norm, rate and wait; validation, checkpoints, and how it ended."""

import time

import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("lightning")

pytestmark = pytest.mark.torch


class Line(lightning.LightningModule):
    def __init__(self, fails_at=None):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.fails_at = fails_at
        self.losses = []

    def training_step(self, batch, index):
        if index == self.fails_at:
            raise ValueError("a bad batch")
        loss = (self.layer(batch) - batch.sum(1, keepdim=True)).pow(2).mean()
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch, index):
        self.log("val_loss", self.layer(batch).mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(tmp_path, model, callback, **changes):
    rows = torch.utils.data.DataLoader(torch.randn(16, 4), batch_size=2)
    settings = dict(max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    patient = lightning.Trainer(default_root_dir=tmp_path, callbacks=[callback], **{**settings, **changes})
    patient.fit(model, rows, rows)


def test_each_optimizer_step_is_one_row(tmp_path, collector):
    from holter.integrations.lightning import HolterCallback

    model = Line()
    fit(tmp_path, model, HolterCallback(project="p", name="n", tokens_of=len), accumulate_grad_batches=2)
    collector.wait_for_event("rank_finished")
    collector.wait_for(lambda seen: len(seen.points("loss")) == 4)
    pairs = zip(model.losses[::2], model.losses[1::2], strict=True)
    assert [value for _, value in collector.points("loss")] == pytest.approx([(a + b) / 2 for a, b in pairs], rel=1e-5)
    assert [value for _, value in collector.points("tokens")] == [4] * 4
    for metric in ("grad_norm", "lr", "data_wait_seconds"):
        assert len(collector.points(metric)) == 4, metric


def test_validation_and_checkpoint_are_declared(tmp_path, collector):
    from holter.integrations.lightning import HolterCallback

    fit(tmp_path, Line(), HolterCallback(project="p", name="n"))
    collector.wait_for_event("rank_finished")
    assert "val_loss" in collector.wait_for_event("eval")["attrs"]["metrics"]
    assert collector.wait_for_event("checkpoint")["step"] == 8


def test_an_exception_is_told_and_still_raised(tmp_path, collector):
    from holter.integrations.lightning import HolterCallback

    with pytest.raises(ValueError, match="a bad batch"):
        fit(tmp_path, Line(fails_at=3), HolterCallback(project="p", name="n"))
    failed = collector.wait_for_event("rank_failed")
    assert (failed["attrs"]["type"], failed["attrs"]["message"]) == ("ValueError", "a bad batch")


class Slow(Line):
    def training_step(self, batch, index):
        time.sleep(0.01)  # the agent needs a moment to hear the advice
        return super().training_step(batch, index)


def test_the_advice_to_stop_ends_the_training(tmp_path, collector):
    from holter.integrations.lightning import HolterCallback

    collector.advice = {"stop": True}
    model = Slow()
    fit(
        tmp_path,
        model,
        HolterCallback(project="p", name="n", obey_every=5),
        max_epochs=250,
        limit_val_batches=0,
        enable_checkpointing=False,
    )
    collector.wait_for_event("rank_finished")
    assert 0 < len(model.losses) < 8 * 250
