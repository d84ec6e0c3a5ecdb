"""A batch's number: the same for the same data, another for other data, and no trouble with anything."""

import numpy as np
import pytest
from holter import batch_hash

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    "batch",
    [
        torch.arange(5_000).reshape(50, 100),
        torch.rand(8, 16, dtype=torch.bfloat16),
        torch.rand(8, 64)[:, ::2],
        torch.zeros(3, dtype=torch.bool),
        {"input_ids": torch.arange(100), "attention_mask": torch.ones(100)},
        (np.arange(10), ["a", "b"]),
        [torch.rand(2), torch.rand(2)],
        ["one text", "another"],
        [[1, 2, 3], [4, 5, 6]],
        "text",
        b"bytes",
        torch.tensor(3.0),
        torch.zeros(0),
    ],
    ids=lambda batch: type(batch).__name__,
)
def test_the_same_batch_has_the_same_number(batch):
    code = batch_hash.of(batch)
    assert code == batch_hash.of(batch) and 0 <= code < batch_hash.MODULUS
    assert float(np.float32(code)) == code, "a frame's floats hold it"


def test_other_batches_have_other_numbers():
    batches = [torch.randint(0, 50_000, (4, 512), generator=torch.Generator().manual_seed(seed)) for seed in range(500)]
    assert len({batch_hash.of(batch) for batch in batches}) == 500
    assert len({float(batch_hash.of_tensor(batch)) for batch in batches}) >= 499
    assert len({batch_hash.of({"ids": batch}) for batch in batches}) == 500


def test_what_has_no_values_has_no_number():
    for batch in (object(), None, {}, [], torch.zeros(3).to_sparse(), torch.zeros(3, device="meta")):
        assert batch_hash.of(batch) is None


def test_accumulated_batches_have_one_number_and_it_knows_their_order():
    assert batch_hash.combined(None, 5) == 5
    assert batch_hash.combined(5, 9) != batch_hash.combined(9, 5)


def test_a_tensor_of_one_dtype_or_another_is_taken_where_it_lies():
    for tensor in (torch.arange(1_000), torch.rand(3, 7), torch.zeros(0, dtype=torch.int64), torch.ones(5, dtype=torch.bool)):
        code = batch_hash.of_tensor(tensor)
        assert code.numel() == 1 and 0 <= float(code) < batch_hash.MODULUS
