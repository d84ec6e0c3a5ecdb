"""A number that names a batch, from a few of its values: what a resumed run's data is held against."""

from __future__ import annotations

import sys
import zlib
from typing import Any

MODULUS = 1 << 24
"""A frame's 32-bit floats hold such a number exactly."""
_SAMPLED = 64
"""Values taken of a tensor, spread over it."""
_MAX_PARTS = 4
"""Tensors of a batch that are looked into."""


def of(batch: Any) -> int | None:
    """Of what lies in host memory: numbers, text, numpy arrays, tensors of the CPU; None if there is nothing such. Some 10 us. May raise."""
    code, parts = 0, list(_parts(batch))
    for part in parts:
        code = zlib.crc32(part, code)
    return code % MODULUS if parts else None


def of_tensor(tensor: Any) -> Any:
    """Of one tensor where it lies, as a tensor of one element that nobody waits for."""
    torch = sys.modules["torch"]  # a tensor is there, so it was imported
    flat = tensor.detach().reshape(-1)
    taken = flat[:: max(1, flat.numel() // _SAMPLED)][:_SAMPLED].to(torch.float64)
    weights = torch.arange(1, len(taken) + 1, device=taken.device, dtype=torch.float64)
    return torch.remainder((taken * weights * 7_919.0).sum().abs(), MODULUS).floor()


def combined(before: int | None, code: int) -> int:
    """The step's number so far and one more micro-batch's."""
    return code if before is None else (before * 1_000_003 + code) % MODULUS


def _parts(batch: Any, depth: int = 0) -> list[bytes]:
    if hasattr(batch, "detach") and hasattr(batch, "device"):
        return _tensor(batch)
    if hasattr(batch, "tobytes") and hasattr(batch, "reshape"):
        return [_spread(batch.reshape(-1)).tobytes()]
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
    if tensor.device.type != "cpu" or tensor.layout.__repr__() != "torch.strided":
        return []
    taken = _spread(tensor.detach().reshape(-1))
    return [taken.contiguous().view(_bytes_of(tensor)).numpy().tobytes()]


def _bytes_of(tensor: Any) -> Any:
    torch = sys.modules["torch"]
    return torch.bool if tensor.dtype == torch.bool else torch.uint8


def _spread(flat: Any) -> Any:
    return flat[:: max(1, len(flat) // _SAMPLED)][:_SAMPLED]
