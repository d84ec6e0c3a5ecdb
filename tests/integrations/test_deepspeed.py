"""A real DeepSpeed engine on the CPU where DeepSpeed is installed; a stand-in with its signatures (0.19.8) for what a CPU does not show."""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.torch


@pytest.fixture
def engine(monkeypatch, tmp_path):
    deepspeed = pytest.importorskip("deepspeed")
    for key, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "DS_ACCELERATOR": "cpu"}.items():
        monkeypatch.setenv(key, value)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    model = torch.nn.Linear(4, 1)
    config = {
        "train_batch_size": 4,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 2,
        "optimizer": {"type": "Adam", "params": {"lr": 0.1, "torch_adam": True}},
        "csv_monitor": {"enabled": True, "output_path": str(tmp_path / "csv")},
    }
    yield deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)[0]
    torch.distributed.destroy_process_group()


def test_each_optimizer_step_of_a_real_engine_is_one_row(engine, collector):
    from holter.integrations.deepspeed import watch

    run = watch(engine, project="p", name="n")
    losses = []
    for _ in range(8):
        loss = engine(torch.randn(2, 4)).pow(2).mean()
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
    run.finish()
    collector.wait_for_event("rank_finished")
    collector.wait_for(lambda seen: len(seen.points("loss")) == 4)
    pairs = zip(losses[::2], losses[1::2], strict=True)
    assert collector.points("loss") == [(step, pytest.approx((a + b) / 2, rel=1e-5)) for step, (a, b) in enumerate(pairs, start=1)]
    assert collector.points("lr") == [(step, 0.1) for step in range(1, 5)]
    assert collector.points("skipped") == [(step, 0.0) for step in range(1, 5)]


class Engine:
    """The calls of `DeepSpeedEngine` that are heard; every third step overflows, as fp16 does."""

    def __init__(self):
        self.global_steps = 0
        self.monitor = SimpleNamespace(write_events=lambda event_list: None)

    def backward(self, loss, retain_graph=False, scale_wrt_gas=True):
        return loss

    def step(self, lr_kwargs=None):
        self.global_steps += 1
        self.monitor.write_events([("Train/Samples/elapsed_time_ms_forward", 20.0, 4), ("Train/Samples/loss_scale", 256.0, 4)])

    def save_checkpoint(self, save_dir, tag=None, client_state={}, save_latest=True, exclude_frozen_parameters=False):  # noqa: B006
        return True

    def was_step_applied(self):
        return self.global_steps % 3 != 0

    def get_global_grad_norm(self):
        return 0.5 if self.was_step_applied() else float("inf")

    def get_lr(self):
        return [0.1]


class PipelineEngine(Engine):
    def train_batch(self, data_iter=None):
        self.step()
        return torch.tensor(1.0)


def test_what_the_monitor_is_told_goes_with_the_step_and_an_overflow_is_a_skipped_step(collector):
    from holter.integrations.deepspeed import watch

    engine = Engine()
    run = watch(engine, project="p", name="n")
    for _ in range(3):
        engine.backward(torch.tensor(2.0))
        engine.step()
    engine.save_checkpoint("saved")
    run.finish()
    collector.wait_for_event("rank_finished")
    collector.wait_for(lambda seen: len(seen.points("loss")) == 3)
    assert collector.points("section_forward_seconds") == [(step, pytest.approx(0.02)) for step in (1, 2, 3)]
    assert collector.points("skipped") == [(1, 0.0), (2, 0.0), (3, 1.0)]
    assert collector.points("grad_norm") == [(1, 0.5), (2, 0.5)]
    assert collector.wait_for_event("checkpoint")["attrs"]["path"] == "saved"


def test_a_pipeline_has_one_row_for_each_batch(collector):
    from holter.integrations.deepspeed import watch

    engine = PipelineEngine()
    run = watch(engine, project="p", name="n")
    for _ in range(3):
        engine.train_batch()
    run.finish()
    collector.wait_for_event("rank_finished")
    collector.wait_for(lambda seen: len(seen.points("loss")) == 3)
    assert [step for step, _ in collector.points("loss")] == [1, 2, 3]
