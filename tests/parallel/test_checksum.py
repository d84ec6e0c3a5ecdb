"""The checksums: the torch side computes the definition, one changed lane is located, several never pass for one."""

import numpy as np
import pytest
from holter.checksum import ROW, checksum, locate
from holter.tensors import Chunk, Layout, Piece, Tensor, place_of, rows_of


def lanes(seed, rows=7):
    return np.random.default_rng(seed).integers(-(2**31), 2**31, rows * ROW, dtype=np.int64).astype(np.int32)


def test_two_thousand_flipped_bits_are_all_located():
    rng = np.random.default_rng(0)
    before = lanes(1)
    old = checksum(before)
    for _ in range(2000):
        place, bit = int(rng.integers(len(before))), int(rng.integers(32))
        after = before.copy()
        after.view(np.uint32)[place] ^= np.uint32(1 << bit)
        assert locate(checksum(after) - old, 7) == (place // ROW, place % ROW, bit)


@pytest.mark.parametrize("count", [2, 4, 16, 64])
def test_drift_of_several_lanes_is_seen_and_never_taken_for_one(count):
    """Changes of one unit in the last place cancel in a plain sum half of the time; not here."""
    rng = np.random.default_rng(count)
    before = lanes(2)
    old = checksum(before)
    for _ in range(2000):
        after = before.copy()
        places = rng.choice(len(before), count, replace=False)
        after[places] += rng.choice(np.array([-1, 1], np.int32), count)
        change = checksum(after) - old
        assert change.any()
        assert locate(change, 7) is None


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64", "int8"])
def test_the_device_side_computes_the_definition_for_pieces_of_any_length(dtype):
    torch = pytest.importorskip("torch")
    from holter.parallel.checksums import Checksums, lanes_of

    generator = torch.Generator().manual_seed(3)
    held, pieces = {}, []
    for number, shape in enumerate([(3, 2048), (5, 7), (1,), (100, 333), (4096, 3)]):
        value = (torch.randn(shape, generator=generator) * 50).to(getattr(torch, dtype))
        tensor = Tensor(f"t{number}", dtype, shape, {}, "test")
        held[tensor.name] = value
        pieces.append(Piece(tensor, 0, tensor.lanes))
    flat = [lanes_of(held[piece.tensor.name], piece).numpy() for piece in pieces]
    whole = [part[: len(part) // ROW * ROW] for part in flat]
    rests = np.concatenate([part[len(part) // ROW * ROW :] for part in flat])
    padded = np.concatenate([*whole, rests, np.zeros(-len(rests) % ROW, np.int32)]).astype(np.int32)
    found = Checksums(torch.device("cpu"), rows_of(pieces) + 5).bucket(pieces, held)
    np.testing.assert_array_equal(found.numpy(), checksum(padded))
    for place in (0, ROW + 5, len(padded) - (-len(rests) % ROW) - 1):
        tensor, lane = place_of(pieces, place // ROW, place % ROW)
        assert flat[int(tensor.name[1])][lane] == padded[place]


def layout(count=300, fraction=0.1):
    shape = {"norm": (64,), "w": (128, 64)}
    tensors = [Tensor(f"layers.{n // 2}.{kind}", "float32", shape[kind], {"dp": "R", "tp": "R" if kind == "norm" else "S0"}, "t")
               for n in range(count) for kind in [("norm", "w")[n % 2]]]  # fmt: skip
    return Layout(tuple(tensors), fraction, ("tp",), {"dp": 2, "tp": 2})


def test_a_layout_survives_its_journey_with_its_digest():
    one = layout()
    again = Layout.from_json(one.to_json())
    assert again == one
    assert again.digest == one.digest


def test_every_lane_is_looked_at_once_a_rotation_within_the_budget():
    one = layout()
    seen = [(piece.tensor.name, piece.start + lane) for chunk in one.data_chunks for piece in chunk.pieces for lane in (0, piece.lanes - 1)]
    assert len(set(seen)) == len(seen)
    norms = {piece.tensor.name for piece in one.model_chunk(0).pieces}
    assert {name for name, _ in seen} | norms == {tensor.name for tensor in one.tensors}
    assert len(one.data_chunks) <= 12
    assert all(sum(piece.lanes for piece in chunk.pieces) <= 1.25 * one.budget for chunk in one.data_chunks)


def test_bad_buckets_of_a_few_rounds_name_one_tensor_of_three_hundred():
    one = layout()
    culprit = "layers.77.w"
    suspects = {tensor.name for tensor in one.tensors}
    whole = Chunk((), tuple(Piece(tensor, 0, tensor.lanes) for tensor in one.tensors))
    for index in range(8):
        bad = next(bucket for bucket in whole.buckets(index) if culprit in {piece.tensor.name for piece in bucket})
        suspects &= {piece.tensor.name for piece in bad}
    assert suspects == {culprit}


def test_mlp_families_come_first_and_the_vocabulary_last():
    names = ["embed.weight", "layers.0.attn.q_proj", "layers.0.mlp.up_proj", "lm_head.weight", "layers.1.mlp.up_proj"]
    one = Layout(tuple(Tensor(name, "float32", (64, 64), {"tp": "S0"}, "t") for name in names))
    assert [family.name for family in one.families] == ["layers.*.mlp.up_proj", "layers.*.attn.q_proj", "embed.weight", "lm_head.weight"]
    assert len(one.families[0].tensors) == 2
