"""A batch's number: the same for the same data, another for other data, and no trouble with anything."""

import numpy as np
import pytest
from holter import batch_hash

torch = pytest.importorskip("torch")
TorchDispatchMode = pytest.importorskip("torch.utils._python_dispatch").TorchDispatchMode


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
    assert len({float(batch_hash.on_device(batch)) for batch in batches}) >= 499
    assert len({batch_hash.of({"ids": batch}) for batch in batches}) == 500


def test_what_has_no_values_has_no_number():
    for batch in (object(), None, {}, [], torch.zeros(3).to_sparse(), torch.zeros(3, device="meta")):
        assert batch_hash.of(batch) is None


def test_accumulated_batches_have_one_number_and_it_knows_their_order():
    assert batch_hash.combined(None, 5) == 5
    assert batch_hash.combined(5, 9) != batch_hash.combined(9, 5)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(1_000),
        torch.rand(3, 7),
        torch.zeros(0, dtype=torch.int64),
        torch.ones(5, dtype=torch.bool),
        torch.rand(4, 6).T,
        torch.rand(8, 16, dtype=torch.bfloat16),
        torch.tensor(3),
    ],
    ids=lambda tensor: f"{tensor.dtype}-{tuple(tensor.shape)}",
)
def test_a_tensor_of_one_dtype_or_another_is_named_where_it_lies(tensor):
    for code in (batch_hash.on_device(tensor), batch_hash.on_device(tensor, batch_hash.on_device(tensor))):
        assert code.numel() == 1 and 0 <= float(code) < batch_hash.MODULUS
    assert float(batch_hash.on_device(tensor)) == float(batch_hash.on_device(tensor.clone()))


class Launched(TorchDispatchMode):
    """The operations that a device would be given: all that are no views of memory that is there."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if not function.is_view:
            self.names.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("batch", [torch.zeros(8, 4096, dtype=torch.int64, device="meta"), torch.zeros(64, 64, device="meta").T])
def test_a_batch_on_a_device_costs_three_small_kernels(batch):
    """However large it is, and whether or not it is contiguous; a fourth adds it to those before it. Nothing is brought to the host."""
    batch_hash.on_device(batch)
    with Launched() as first:
        code = batch_hash.of_tensor(batch)
    with Launched() as second:
        batch_hash.of_tensor(batch, code)
    assert first.names == ["aten.mul.Tensor", "aten.sum.default", "aten.remainder.Scalar"]
    assert second.names == ["aten.mul.Tensor", "aten.sum.default", "aten.add.Tensor", "aten.remainder.Scalar"]


def test_a_tensor_in_host_memory_is_named_by_the_host():
    batch = torch.arange(1_000)
    with Launched() as launched:
        code = batch_hash.of_tensor(batch)
    assert launched.names == [] and code == batch_hash.of(batch)
    assert batch_hash.of_tensor(batch, code) == batch_hash.combined(code, code)
