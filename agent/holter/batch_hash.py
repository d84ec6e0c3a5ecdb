"""A number that names a batch, from a few of its values: what a resumed run's data is held against."""

from __future__ import annotations

import sys
import zlib
from typing import Any

MODULUS = 1 << 24
"""A frame's 32-bit floats hold such a number exactly."""
_SAMPLED = 64
"""Values taken of a tensor, spread over it."""
_MAX_PARTS = 2
"""Tensors of a batch that are looked into."""


def of(batch: Any) -> int | None:
    """Of what lies in host memory: numbers, text, numpy arrays, tensors of the CPU; None if there is nothing such. Some 10 us, however large. May raise."""
    code, parts = 0, list(_parts(batch))
    for part in parts:
        code = zlib.crc32(part, code)
    return code % MODULUS if parts else None


def of_tensor(tensor: Any, before: Any = None) -> Any:
    """Of one tensor where it lies, and of the step's batches `before` it. In host memory a number, as `of` makes it; None if it has none."""
    if tensor.device.type != "cpu":
        return on_device(tensor, before)
    code = of(tensor)
    return before if code is None else combined(before, code)


def on_device(tensor: Any, before: Any = None) -> Any:
    """A tensor of one element that nobody waits for: three small kernels over 64 values, four where there is one `before`."""
    torch = sys.modules["torch"]  # a tensor is there, so it was imported
    tensor = tensor.detach()
    while not tensor.is_contiguous():  # flattened, all of it would be copied; its first row names it too
        tensor = tensor[0]
    flat = tensor.view(-1)
    taken = flat[:: max(1, flat.numel() // _SAMPLED)][:_SAMPLED]
    if tensor.device not in _weights:
        _weights[tensor.device] = torch.arange(1, _SAMPLED + 1, device=tensor.device, dtype=torch.float64) * 7_919.0
    code = (taken * _weights[tensor.device][: len(taken)]).sum()
    return torch.remainder(code if before is None else before + code, MODULUS)


_weights: dict[Any, Any] = {}
"""For each device, what tells a value's place: made once."""


def combined(before: int | None, code: int) -> int:
    """The step's number so far and one more micro-batch's."""
    return code if before is None else (before * 1_000_003 + code) % MODULUS


def _parts(batch: Any, depth: int = 0) -> list[bytes]:
    if hasattr(batch, "detach") and hasattr(batch, "device"):
        return _tensor(batch)
    if hasattr(batch, "tobytes") and hasattr(batch, "flat"):
        return _array(batch)
    if isinstance(batch, bytes):
        return [batch[:_SAMPLED]]
    if isinstance(batch, str | int | float):
        return [repr(batch)[:_SAMPLED].encode()]
    within = list(batch.values()) if hasattr(batch, "values") else batch if isinstance(batch, list | tuple) else ()
    found: list[bytes] = []
    for part in within[:_SAMPLED] if depth < 3 else ():
        found += _parts(part, depth + 1)
        if len(found) >= (_MAX_PARTS if depth < 2 else _SAMPLED):
            break
    return found


def _tensor(tensor: Any) -> list[bytes]:
    if tensor.device.type != "cpu":
        return []
    tensor = tensor.detach()
    try:
        return _array(tensor.numpy())
    except TypeError:  # a type that numpy has not, as bfloat16, or a sparse tensor
        torch = sys.modules["torch"]
        same_size = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(tensor.element_size())
        return _array(tensor.view(same_size).numpy()) if tensor.layout == torch.strided and same_size else []


def _array(array: Any) -> list[bytes]:
    """Values spread over it. `flat` takes them one by one where they lie: a `reshape` would copy all of an array that is a view."""
    if array.dtype.hasobject:  # their bytes are addresses
        return []
    return [array.flat[:: max(1, array.size // _SAMPLED)][:_SAMPLED].tobytes()]
