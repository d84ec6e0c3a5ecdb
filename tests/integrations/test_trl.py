"""A real `SFTTrainer` of TRL, which is a transformers `Trainer`: every step of every rank is seen, tokens and loss too."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

pytestmark = pytest.mark.torch


def test_supervised_fine_tuning_is_watched(tmp_path, collector):
    from holter.integrations.transformers import watch
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"<eos>": 0, "<unk>": 1, "a": 2, "b": 3, "c": 4}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", pad_token="<eos>", unk_token="<unk>")
    config = transformers.GPT2Config(vocab_size=5, n_positions=16, n_embd=16, n_layer=1, n_head=2, eos_token_id=0, bos_token_id=0)
    arguments = trl.SFTConfig(
        output_dir=str(tmp_path / "out"),
        max_steps=6,
        per_device_train_batch_size=2,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        max_length=16,
    )
    rows = datasets.Dataset.from_dict({"text": ["a b c a b c"] * 32})
    patient = trl.SFTTrainer(model=transformers.GPT2LMHeadModel(config), args=arguments, train_dataset=rows, processing_class=tokenizer)
    watch(patient, project="p", name="n")
    patient.train()
    collector.wait_for_event("rank_finished")
    collector.wait_for(lambda seen: len(seen.points("loss")) == 6)
    for metric in ("tokens", "grad_norm", "lr", "data_wait_seconds", "batch_hash"):
        assert [step for step, _ in collector.points(metric)] == list(range(1, 7)), metric
