"""State to bytes and back, exactly, without pickle: what lets detection continue after a kill as if nothing had happened.

Plain values stay themselves (msgpack keeps every bit of a float, NaN included); everything else is `[tag, …]`. A dataclass is named by
module and class, and only classes of the modules that the reader trusts are ever built.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import fields, is_dataclass
from typing import Any

import msgspec
import numpy as np

_PLAIN = (str, int, float, bool, bytes, type(None))


class SnapshotError(Exception):
    """The bytes hold no state of this version; the sentence says what did not fit."""


def pack(value: Any) -> bytes:
    return msgspec.msgpack.encode(flatten(value))


def unpack(data: bytes, trusted: Collection[str] = ()) -> Any:
    """The value in `data`. `trusted` names further modules whose dataclasses may be built. Raises `SnapshotError`."""
    try:
        return build(msgspec.msgpack.decode(data), frozenset(trusted))
    except (msgspec.DecodeError, TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise SnapshotError(str(error)) from error


def flatten(value: Any) -> Any:
    if type(value) is int and not -(2**63) <= value < 2**63:
        return ["i", str(value)]  # JSON has such integers, msgpack has not
    if isinstance(value, _PLAIN) and not isinstance(value, np.generic):
        return value
    if isinstance(value, list | deque) and (run := _run(value)) is not None:
        return run
    if isinstance(value, list):
        return ["l", [flatten(inner) for inner in value]]
    if isinstance(value, tuple):
        return ["t", [flatten(inner) for inner in value]]
    if isinstance(value, dict):
        return ["d", [[flatten(key), flatten(inner)] for key, inner in value.items()]]
    if isinstance(value, deque):
        return ["q", value.maxlen, [flatten(inner) for inner in value]]
    if isinstance(value, set | frozenset):
        return ["s" if isinstance(value, set) else "f", [flatten(inner) for inner in sorted(value)]]
    if isinstance(value, np.ndarray):
        return ["a", value.dtype.str, list(value.shape), np.ascontiguousarray(value).tobytes()]
    if isinstance(value, np.generic):
        return ["n", value.dtype.str, value.tobytes()]
    if is_dataclass(value) and not isinstance(value, type):
        return ["c", type(value).__module__, type(value).__qualname__, state_of(value, _kept(type(value)))]
    raise TypeError(f"{type(value).__name__} cannot be kept in a snapshot")


def state_of(owner: Any, names: Collection[str]) -> Any:
    return [[name, flatten(getattr(owner, name))] for name in sorted(names)]


def _run(values: list[Any] | deque[Any]) -> list[Any] | None:
    """Many alike, the bulk of most states; None if they are few or unlike."""
    kinds = {type(inner) for inner in values} if len(values) > 8 else set()
    if len(kinds) != 1:
        return None
    size, kind = values.maxlen if isinstance(values, deque) else -1, kinds.pop()
    if kind is float:
        return ["r", size, np.array(values).tobytes()]
    if is_dataclass(kind) and _kept(kind):
        return ["o", size, kind.__module__, kind.__qualname__, _columns(values, _kept(kind))]
    return None


def _columns(owners: Collection[Any], names: Collection[str]) -> Any:
    """The states of many alike, a list a field: its name stands once, and numbers lie together."""
    return [[name, flatten([getattr(owner, name) for owner in owners])] for name in sorted(names)]


def build(flat: Any, trusted: frozenset[str]) -> Any:
    if not isinstance(flat, list):
        return flat
    return _BUILDERS[flat[0]](flat[1:], trusted)


def _floats(body: list[Any]) -> list[float] | deque[float]:
    """Eight bytes each. A size of -1 is a list's."""
    size, data = body
    values: list[float] = np.frombuffer(data, np.float64).tolist()
    return values if size == -1 else deque(values, maxlen=size)


def _object(body: list[Any], trusted: frozenset[str]) -> Any:
    module, name, state = body
    kind = _class(module, name, {entry[0] for entry in state}, trusted)
    return _made(kind, {entry[0]: build(entry[1], trusted) for entry in state})


def _objects(body: list[Any], trusted: frozenset[str]) -> list[Any] | deque[Any]:
    size, module, name, columns = body
    kind = _class(module, name, {entry[0] for entry in columns}, trusted)
    names = [entry[0] for entry in columns]
    made = [_made(kind, dict(zip(names, row, strict=True))) for row in zip(*(build(entry[1], trusted) for entry in columns), strict=True)]
    return made if size == -1 else deque(made, maxlen=size)


def _class(module: str, name: str, names: set[str], trusted: frozenset[str]) -> Any:
    """The dataclass of this name, if its states may be built and have these fields."""
    if not module.startswith("holter_monitor.") and module not in trusted:
        raise ValueError(f"a class of {module} in a snapshot")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part)
    if not (isinstance(found, type) and is_dataclass(found)):
        raise ValueError(f"{module}.{name} is no dataclass")
    if names != _kept(found):
        raise ValueError(f"{name} has other fields in this version")
    return found


def _made(kind: Any, state: dict[str, Any]) -> Any:
    made: Any = object.__new__(kind)
    for name, value in state.items():
        object.__setattr__(made, name, value)
    if any(f.metadata.get("derived") for f in fields(kind)):
        made.derive()
    return made


def _kept(kind: Any) -> set[str]:
    """The fields that are kept; one with `metadata={"derived": True}` is made anew by the class's `derive`."""
    return {f.name for f in fields(kind) if not f.metadata.get("derived")}


_BUILDERS: dict[str, Callable[[list[Any], frozenset[str]], Any]] = {
    "l": lambda body, trusted: [build(inner, trusted) for inner in body[0]],
    "i": lambda body, trusted: int(body[0]),
    "t": lambda body, trusted: tuple(build(inner, trusted) for inner in body[0]),
    "d": lambda body, trusted: {build(key, trusted): build(inner, trusted) for key, inner in body[0]},
    "r": lambda body, trusted: _floats(body),
    "q": lambda body, trusted: deque((build(inner, trusted) for inner in body[1]), maxlen=body[0]),
    "s": lambda body, trusted: {build(inner, trusted) for inner in body[0]},
    "f": lambda body, trusted: frozenset(build(inner, trusted) for inner in body[0]),
    "a": lambda body, trusted: np.frombuffer(body[2], body[0]).reshape(body[1]).copy(),
    "n": lambda body, trusted: np.frombuffer(body[1], body[0])[0],
    "c": _object,
    "o": _objects,
}
