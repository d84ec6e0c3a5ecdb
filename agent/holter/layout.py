"""Where the columns of a frame lie in its body. The frames of one agent share a layout until a metric comes or goes, so it is checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from holter.errors import FrameError

DTYPES = ("<i8", "<i4", "<f4", "<f8")
KEYS = {"rank": "<i4", "step": "<i8", "time_ns": "<i8"}
MAX_COLUMNS = 4_096
MAX_NAME = 200
REMEMBERED_COLUMNS = 256
Heads: TypeAlias = "tuple[tuple[Any, Any, Any], ...]"


@dataclass(frozen=True, slots=True)
class Place:
    """One column: its bytes start at `offset` of the body, its validity bitmap (if there is one) at `validity`."""

    name: str
    dtype: np.dtype[Any]
    offset: int
    validity: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    rows: int
    keys: tuple[Place, ...]
    """rank, step, time_ns."""
    metrics: Mapping[str, Place]
    """By name, in their order."""
    size: int
    """Bytes of the body."""

    def check(self, size: int) -> None:
        """Raises `FrameError` if the body is not exactly as long as its columns."""
        if size > self.size:
            raise FrameError("body", f"{size - self.size} bytes follow the last column", "list every column in the header")
        if size < self.size:
            places = (*self.keys, *self.metrics.values())
            ends = (*(place.offset for place in places[1:]), self.size)
            cut = next(place.name for place, end in zip(places, ends, strict=True) if end > size)
            raise FrameError(f"columns.{cut}", f"{size} bytes for {self.size}", "send every column whole")


def layout_of(heads: Any, rows: int) -> Layout:
    """The layout that the header's `columns` describe. Raises `FrameError`."""
    if not isinstance(heads, list):
        raise FrameError("columns", f"{shown(heads)} is not a list", "give the list of columns")
    if len(heads) > MAX_COLUMNS:
        raise FrameError("columns", f"{len(heads)} columns", f"at most {MAX_COLUMNS} a frame")
    try:
        told = tuple([(head["name"], head["dtype"], head.get("nulls", False)) for head in heads])
        # True and 1 are equal as keys of the memory; only the first is an answer to `nulls`.
        is_plain = all(nulls.__class__ is bool for _, _, nulls in told)
        if is_plain and len(told) <= REMEMBERED_COLUMNS:
            return _remembered(told, rows)
    except (AttributeError, KeyError, TypeError):
        told = tuple(_told(head, index) for index, head in enumerate(heads))
    return _checked(told, rows)


def _told(head: Any, index: int) -> tuple[Any, Any, Any]:
    if not isinstance(head, dict):
        raise FrameError(f"columns[{index}]", f"{shown(head)} is not an object", 'a column is {"name", "dtype", "nulls"}')
    return head.get("name"), head.get("dtype"), head.get("nulls", False)


def _checked(heads: Heads, rows: int) -> Layout:
    if tuple(name for name, _, _ in heads[: len(KEYS)]) != tuple(KEYS):
        raise FrameError(
            "columns", f"starts with {shown([head[0] for head in heads[:3]])}", "the first three columns are rank, step, time_ns"
        )
    places: list[Place] = []
    seen: set[str] = set()
    offset = 0
    for index, (name, dtype, nulls) in enumerate(heads):
        _check(name, dtype, nulls, where=f"columns[{index}]", seen=seen)
        seen.add(name)
        length = np.dtype(dtype).itemsize * rows
        places.append(Place(name, np.dtype(dtype), offset, offset + length if nulls else None))
        offset += length + ((rows + 7) // 8 if nulls else 0)
    return Layout(rows, tuple(places[: len(KEYS)]), {place.name: place for place in places[len(KEYS) :]}, offset)


_remembered = lru_cache(maxsize=256)(_checked)


def _check(name: Any, dtype: Any, nulls: Any, *, where: str, seen: set[str]) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise FrameError(f"{where}.name", f"{shown(name)} is no name", f"a name is 1 to {MAX_NAME} printable characters")
    if name in seen:
        raise FrameError(f"{where}.name", f"{name!r} stands twice", "name each column once")
    if dtype not in DTYPES or KEYS.get(name, dtype) != dtype:
        remedy = f"use one of {', '.join(DTYPES)}; rank is <i4, step and time_ns <i8"
        raise FrameError(f"{where}.dtype", f"{shown(dtype)} for {name}", remedy)
    if not isinstance(nulls, bool) or (nulls and name in KEYS):
        raise FrameError(f"{where}.nulls", f"{shown(nulls)} for {name}", "true or false; rank, step and time_ns are never absent")


def shown(value: Any) -> str:
    """`value` as it may stand in an error: short."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
