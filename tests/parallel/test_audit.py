"""`holter audit`: duplicated shards and unequal copies in saved checkpoints of each known format; rubbish is refused, and nothing is run."""

import argparse
import json
import os
import pickle  # noqa: TID251  the attack is written with it; the product must never read it that way

import numpy as np
import pytest
from holter.cli import main
from holter_monitor.checkpoints.errors import CheckpointError
from holter_monitor.checkpoints.stored import read
from holter_monitor.consistency.audit import audit

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def state(rank, *, is_buggy=False, norm=1.0, dtype=None, layers=3):
    """One tensor-parallel rank's weights, named as Megatron-LM names them."""
    generator = torch.Generator().manual_seed(7 if is_buggy else 7 + rank)
    made = {"embedding.word_embeddings.weight": torch.randn(128, 64, generator=generator)}
    for layer in range(layers):
        at = f"decoder.layers.{layer}"
        made[f"{at}.input_layernorm.weight"] = torch.ones(64) * norm
        made[f"{at}.mlp.linear_fc1.weight"] = torch.randn(128, 64, generator=generator) * 0.02
        made[f"{at}.mlp.linear_fc2.weight"] = torch.randn(64, 128, generator=generator) * 0.02
        made[f"{at}.mlp.linear_fc2.bias"] = torch.zeros(64)
    return {name: value.to(dtype) if dtype else value for name, value in made.items()}


def megatron(folder, *, ranks=2, **options):
    for rank in range(ranks):
        place = folder / f"mp_rank_{rank:02d}"
        place.mkdir(parents=True)
        saved = {"args": argparse.Namespace(tensor_model_parallel_size=ranks), "iteration": 500, "model": state(rank, **options)}
        torch.save(saved, place / "model_optim_rng.pt")
    return folder


def kinds(folder):
    return [(finding.kind, finding.severity) for finding in audit(read(folder)).findings]


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_megatron_ranks_with_the_same_seed_are_found(tmp_path, dtype):
    answer = audit(read(megatron(tmp_path, is_buggy=True, dtype=dtype)))
    (finding,) = answer.findings
    assert (finding.kind, finding.severity, finding.ranks) == ("tp_duplicate_shards", 3, (0, 1))
    assert finding.evidence["tensors"] == 7
    assert (answer.shards, answer.copies) == (7, 6)


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_healthy_megatron_checkpoint_is_met_with_silence(tmp_path, ranks):
    assert kinds(megatron(tmp_path, ranks=ranks)) == []


def test_layer_norms_that_differ_between_ranks_are_found_as_in_gpt_neox_20b(tmp_path):
    for rank in range(2):
        for layer in range(2):
            saved = {"input_layernorm.weight": torch.ones(64) + 0.01 * rank, "mlp.dense_h_to_4h.weight": torch.randn(64, 64)}
            torch.save(saved, tmp_path / f"layer_{layer:02d}-model_{rank:02d}-model_states.pt")
    (finding,) = audit(read(tmp_path)).findings
    assert (finding.kind, finding.severity) == ("replica_mismatch", 3)
    assert finding.evidence["families"] == ["layers.*.input_layernorm.weight"]


def safetensors(path, arrays):
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(arrays, path)


@pytest.mark.parametrize("is_buggy", [True, False])
def test_nanotron_shards(tmp_path, is_buggy):
    for rank in range(2):
        rng = np.random.default_rng(0 if is_buggy else rank)
        for layer in range(2):
            place = tmp_path / "model" / "decoder" / str(layer) / "mlp" / "down_proj"
            name = f"model_weight_pp-rank-0-of-1_tp-rank-{rank}-of-2.safetensors"
            safetensors(place / name, {"data": rng.standard_normal((64, 128), np.float32)})
    assert kinds(tmp_path) == ([("tp_duplicate_shards", 3)] if is_buggy else [])


@pytest.mark.parametrize("degree", [2, 4, 8])
@pytest.mark.parametrize("dimension", [0, 1])
def test_the_bug_survives_consolidation_and_is_seen_in_plain_safetensors(tmp_path, degree, dimension):
    rng = np.random.default_rng(1)
    shard = rng.standard_normal((64, 64)).astype(np.float32)
    whole = {"model.layers.0.mlp.down_proj.weight": np.concatenate([shard] * degree, axis=dimension)}
    whole["model.layers.0.self_attn.q_proj.weight"] = rng.standard_normal((256, 256)).astype(np.float32)
    safetensors(tmp_path / "model.safetensors", whole)
    (finding,) = audit(read(tmp_path)).findings
    assert finding.kind == "tp_duplicate_shards"
    assert list(finding.evidence["families"]) == ["model.layers.*.mlp.down_proj.weight"]


def test_shards_with_a_common_mean_stay_silent(tmp_path):
    """Raw cosine above 0.4, as vocabulary shards of real models have."""
    rng = np.random.default_rng(2)
    whole = rng.standard_normal((512, 64)).astype(np.float32) + rng.standard_normal(64).astype(np.float32)
    halves = whole.reshape(2, -1)
    assert np.corrcoef(halves)[0, 1] > 0.4
    safetensors(tmp_path / "model.safetensors", {"model.embed_tokens.weight": whole})
    assert kinds(tmp_path) == []


def test_the_command_says_it_in_json_and_by_its_exit_status(tmp_path, capsys):
    assert main(["audit", str(megatron(tmp_path / "bad", is_buggy=True)), "--json"]) == 3
    (finding,) = json.loads(capsys.readouterr().out)
    assert finding["kind"] == "tp_duplicate_shards"
    assert main(["audit", str(megatron(tmp_path / "good"))]) == 0
    assert "shards are unlike, copies are equal" in capsys.readouterr().out


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    folder = megatron(tmp_path / "attack")
    for rank in range(2):
        torch.save(
            {"model": {**state(rank), "evil": Attack()}}, folder / f"mp_rank_{rank:02d}" / "model_optim_rng.pt", pickle_module=pickle
        )
    assert kinds(folder) == []
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04rubbish", b"\x80\x05.", os.urandom(4096)], ids=["empty", "half a zip", "a pickle", "noise"]
)
def test_rubbish_is_exit_status_2_and_names_the_file(tmp_path, content, capsys):
    for rank in range(2):
        place = tmp_path / f"mp_rank_{rank:02d}"
        place.mkdir()
        (place / "model_optim_rng.pt").write_bytes(content)
    assert main(["audit", str(tmp_path)]) == 2
    assert "mp_rank_00" in capsys.readouterr().err


@pytest.mark.parametrize("cut", [9, 200, 5_000])
def test_a_cut_off_safetensors_file_is_refused(tmp_path, cut):
    path = tmp_path / "model.safetensors"
    safetensors(path, {"a.weight": np.zeros((64, 64), np.float32)})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        read(tmp_path)


def test_an_empty_folder_says_what_is_known(tmp_path):
    with pytest.raises(CheckpointError, match="Megatron-LM"):
        read(tmp_path)
    with pytest.raises(CheckpointError, match="no such"):
        read(tmp_path / "missing")
