"""Turns what a user hands to `run.step` into floats, without ever waiting for a device."""

from __future__ import annotations

from typing import Any


class NotANumberError(TypeError):
    """The value has no float in it; it is counted and left out."""


def is_on_device(value: Any) -> bool:
    """Whether reading `value` could wait for an accelerator."""
    return bool(getattr(value, "is_cuda", False) or getattr(value, "is_xpu", False) or getattr(value, "is_meta", False))


def is_late(value: Any) -> bool:
    """Whether `value` says itself that it is still being computed, as a `jax.Array` does; reading it would wait. Raises `NotANumberError`."""
    if not hasattr(value, "is_ready"):
        return False
    try:
        if value.size != 1:
            raise NotANumberError(f"an array of {value.size} elements")
        return not value.is_ready()
    except NotANumberError:
        raise
    except Exception as error:
        # A donated buffer, a tracer: there is nothing to wait for.
        raise NotANumberError(type(value).__name__) from error


def to_float(value: Any) -> float:
    """The float in a number, a numpy scalar or a CPU tensor of one element. Raises `NotANumberError`.

    Integers beyond the floats become infinite with their sign: a count that overflows is a finding, not a gap.
    """
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return float("inf") if value > 0 else float("-inf")
    if isinstance(value, str | bytes | bytearray) or not hasattr(type(value), "__float__"):
        raise NotANumberError(type(value).__name__)
    try:
        return float(value.detach()) if hasattr(value, "detach") else float(value)
    except Exception as error:
        # Somebody else's __float__: a tensor of several elements, a lazy array, a broken object.
        raise NotANumberError(type(value).__name__) from error


def whole(value: Any) -> Any:
    """`value`, or this rank's part of a DTensor where it is the whole: `full_tensor()` is a collective that one rank must never start."""
    if not hasattr(value, "to_local"):
        return value
    if any(not placement.is_replicate() for placement in getattr(value, "placements", ())):
        raise NotANumberError("a partial or sharded DTensor")
    return value.to_local()


def one_element(value: Any) -> Any:
    """A device tensor of one element, known by its shape alone. Raises `NotANumberError`."""
    if value.numel() != 1:
        raise NotANumberError(f"a tensor of {value.numel()} elements")
    return value
