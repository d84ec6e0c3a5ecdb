"""A real Trainer on a tiny model: every step's own loss arrives, NaN too, whatever the Trainer's log filters."""

import math
import time

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.torch


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        row = torch.arange(index, index + 16) % 50
        return {"input_ids": row, "labels": row}


def trainer(tmp_path, model=None, **changes):
    config = transformers.GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=1, n_head=2)
    settings = dict(
        output_dir=str(tmp_path / "out"), max_steps=8, per_device_train_batch_size=2, logging_steps=4, report_to=[], save_steps=4
    )
    arguments = transformers.TrainingArguments(**{**settings, "use_cpu": True, "disable_tqdm": True, **changes})
    model = model or transformers.GPT2LMHeadModel(config)
    return transformers.Trainer(model=model, args=arguments, train_dataset=Rows(), eval_dataset=Rows())


def test_every_step_is_seen_with_what_the_trainer_knows(tmp_path, collector):
    from holter.integrations.transformers import watch

    patient = trainer(tmp_path, gradient_accumulation_steps=2)
    watch(patient, project="p", name="n")
    patient.train()
    collector.wait_for_event("rank_finished")
    collector.wait_for(lambda seen: len(seen.points("loss")) == 8)
    assert [step for step, _ in collector.points("loss")] == list(range(1, 9))
    assert [value for _, value in collector.points("tokens")] == [2 * 2 * 16] * 8
    for metric in ("grad_norm", "lr", "data_wait_seconds"):
        assert len(collector.points(metric)) == 8, metric
    logged = [entry["loss"] for entry in patient.state.log_history if "loss" in entry]
    ours = [value for _, value in collector.points("loss")]
    assert logged == pytest.approx([sum(ours[:4]) / 4, sum(ours[4:]) / 4], rel=1e-3)


def test_checkpoints_and_evaluations_are_declared(tmp_path, collector):
    from holter.integrations.transformers import watch

    patient = trainer(tmp_path, eval_strategy="steps", eval_steps=4)
    watch(patient, project="p", name="n")
    patient.train()
    collector.wait_for_event("rank_finished")
    saved = [event for event in collector.events if event["event"] == "checkpoint"]
    assert [event["step"] for event in saved] == [4, 8]
    assert saved[0]["attrs"]["path"].endswith("checkpoint-4")
    [first, _second] = [event for event in collector.events if event["event"] == "eval"]
    assert first["attrs"]["metrics"]["eval_loss"] > 0


def test_a_nan_that_the_trainer_hides_is_seen(tmp_path, collector):
    from holter.integrations.transformers import watch

    calls = []

    def sicken(_model, _words, answer):
        calls.append(1)
        if len(calls) == 3:
            answer["loss"] = answer["loss"] * math.nan

    patient = trainer(tmp_path, logging_nan_inf_filter=True)
    patient.model.register_forward_hook(sicken)
    watch(patient, project="p", name="n")
    patient.train()
    collector.wait_for_event("rank_finished")
    collector.wait_for(lambda seen: len(seen.points("loss")) == 8)
    assert math.isnan(dict(collector.points("loss"))[3])
    assert not any(math.isnan(entry["loss"]) for entry in patient.state.log_history[:1] if "loss" in entry)


def test_the_callback_alone_records_what_the_trainer_logs(tmp_path, collector):
    from holter.integrations.transformers import HolterCallback

    patient = trainer(tmp_path)
    patient.add_callback(HolterCallback(project="p", name="n"))
    patient.train()
    collector.wait_for_event("rank_finished")
    collector.wait_for(lambda seen: len(seen.points("loss")) == 2)
    assert [step for step, _ in collector.points("loss")] == [4, 8]


def test_holter_switched_off_changes_nothing(tmp_path, collector, monkeypatch):
    from holter.integrations.transformers import watch

    def losses(name):
        transformers.set_seed(0)
        patient = trainer(tmp_path / name)
        if name != "bare":
            watch(patient)
        patient.train()
        return [entry["loss"] for entry in patient.state.log_history if "loss" in entry]

    bare, watched = losses("bare"), losses("watched")
    monkeypatch.setenv("HOLTER_DISABLED", "1")
    assert bare == watched == losses("off")


def test_the_advice_to_stop_ends_the_training(tmp_path, collector):
    from holter.integrations.transformers import watch

    collector.advice = {"stop": True}
    patient = trainer(tmp_path, max_steps=2_000, logging_steps=2_000, save_strategy="no")
    patient.model.register_forward_pre_hook(lambda *_: time.sleep(0.01))  # the agent needs a moment to hear it
    watch(patient, project="p", name="n", obey_every=5)
    patient.train()
    collector.wait_for_event("rank_finished")
    assert 0 < patient.state.global_step < 2_000


def test_advice_is_heard_but_not_obeyed_unless_the_script_says_so(tmp_path, collector):
    from holter.integrations.transformers import watch

    collector.advice = {"stop": True, "checkpoint": True}
    patient = trainer(tmp_path, save_strategy="no", max_steps=10)
    heard = []
    callback = watch(patient, project="p", name="n")

    def wait(*_):
        if not heard:
            _wait_for(lambda: callback.run.advice.stop)
            heard.append(True)

    patient.model.register_forward_pre_hook(wait)
    patient.train()
    assert patient.state.global_step == 10 and not list((tmp_path / "out").glob("checkpoint-*"))


def _wait_for(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_resume_that_ignores_the_data_s_place_sees_the_first_batches_again(tmp_path, collector):
    """What `ignore_data_skip=True` does: told by the same numbers at other steps. Without it they are those that would have come."""
    from holter.integrations.transformers import watch

    hashes, so_far = {}, 0
    for ignore in (None, True, False):
        patient = trainer(tmp_path, **({} if ignore is None else {"ignore_data_skip": ignore}))
        watch(patient, project="p", name=f"ignore {ignore}")
        patient.train(resume_from_checkpoint=None if ignore is None else str(tmp_path / "out" / "checkpoint-4"))
        known, so_far = so_far, so_far + (8 if ignore is None else 4)
        collector.wait_for(lambda seen, total=so_far: len(seen.points("batch_hash")) == total)
        hashes[ignore] = collector.points("batch_hash")[known:]
    first = [code for _, code in hashes[None]]
    assert len(set(first)) == 8
    assert [code for _, code in hashes[True]] == first[:4]
    assert hashes[False] == hashes[None][4:]
