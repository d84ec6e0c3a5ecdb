"""Frames into columns: the rows of many frames as one Arrow table, at a few nanoseconds a point.

The frames of a big run are alike: same metrics, same number of rows, nothing absent. Their bodies, one behind the other, are an array of records already, and
a column is a stride through it. Frames of many shapes go metric by metric.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from holter.frame import Column, Frame
from holter.layout import Layout

from holter_monitor.store.ports import Entry

FEW = 4
"""Frames of one layout from which the stride pays."""


@dataclass(slots=True)
class Block:
    """Frames of one run in which a metric has one dtype, and their bytes."""

    entries: list[Entry]
    types: dict[str, str]
    """Metric → dtype, in order of appearance."""

    @property
    def attempts(self) -> list[str]:
        return [entry.frame.attempt for entry in self.entries]

    @property
    def nodes(self) -> list[str]:
        return [entry.frame.node for entry in self.entries]

    def having(self, metrics: Collection[str]) -> Block:
        """The frames in which one of the metrics is."""
        return Block([entry for entry in self.entries if any(name in metrics for name in _names(entry.frame))], self.types)

    def table(self, attempts: Mapping[str, int], nodes: Mapping[str, int], columns: Mapping[str, str]) -> pa.Table:
        """The Arrow table to insert: the keys, then each metric under its column's name. By attempt, step and rank: beside their neighbours the keys
        pack to a few bits."""
        table = self._table(attempts, nodes, columns)
        keys = [table[key].to_numpy() for key in ("rank", "step", "attempt")]
        return table.take(pa.array(np.lexsort(keys)))

    def _table(self, attempts: Mapping[str, int], nodes: Mapping[str, int], columns: Mapping[str, str]) -> pa.Table:
        lengths = [entry.frame.rows for entry in self.entries]
        parts: dict[str, Any] = {
            "attempt": np.repeat(np.array([attempts[name] for name in self.attempts], np.int32), lengths),
            "node": np.repeat(np.array([nodes[name] for name in self.nodes], np.int32), lengths),
        }
        layout = self.entries[0].frame.layout
        if layout is not None and len(self.entries) >= FEW and all(entry.frame.layout is layout for entry in self.entries):
            return pa.table(parts | self._strides(layout, columns))
        frames = [entry.frame for entry in self.entries]
        parts |= {key: np.concatenate([getattr(frame, key) for frame in frames]) for key in ("rank", "step", "time_ns")}
        return pa.table(parts | {column: _metric(frames, name, self.types[name]) for name, column in columns.items()})

    def _strides(self, layout: Layout, columns: Mapping[str, str]) -> dict[str, Any]:
        end = layout.size + 4
        records = np.frombuffer(b"".join([entry.body[-end:-4] for entry in self.entries]), np.uint8).reshape(len(self.entries), layout.size)
        parts: dict[str, Any] = {}
        for place in (*layout.keys, *layout.metrics.values()):
            name = place.name if place in layout.keys else columns.get(place.name)
            if name is None:
                continue
            length = place.dtype.itemsize * layout.rows
            values = np.ascontiguousarray(records[:, place.offset : place.offset + length]).view(place.dtype).reshape(-1)
            if place.validity is None:
                parts[name] = values
            else:
                bits = records[:, place.validity : place.validity + (layout.rows + 7) // 8]
                absent = ~np.unpackbits(bits, axis=1, count=layout.rows, bitorder="little").view(np.bool_).reshape(-1)
                parts[name] = pa.array(values, mask=absent)
        return parts


def _metric(frames: Sequence[Frame], name: str, kind: str) -> pa.Array:
    dtype = np.dtype(kind)
    found = [frame.metrics.get(name) for frame in frames]
    values = np.concatenate([_values(column, frame.rows, dtype) for column, frame in zip(found, frames, strict=True)])
    if all(column is not None and column.present is None for column in found):
        return pa.array(values)
    absent = np.concatenate([_absent(column, frame.rows) for column, frame in zip(found, frames, strict=True)])
    return pa.array(values, mask=absent)


def _values(column: Column | None, rows: int, dtype: np.dtype[Any]) -> Any:
    return np.zeros(rows, dtype) if column is None else column.values


def _absent(column: Column | None, rows: int) -> Any:
    if column is None:
        return np.ones(rows, bool)
    return np.zeros(rows, bool) if column.present is None else ~column.present


def blocks(entries: Sequence[Entry]) -> Iterator[Block]:
    """The entries of one run that have rows: those of a frequent layout together, the others together, cut where a metric changes its dtype."""
    by_layout: dict[int, list[Entry]] = {}
    for entry in entries:
        if entry.frame.rows:
            by_layout.setdefault(id(entry.frame.layout), []).append(entry)
    rest: list[Entry] = []
    for alike in by_layout.values():
        if len(alike) >= FEW and alike[0].frame.layout is not None:
            yield Block(alike, _types(alike[0].frame))
        else:
            rest += alike
    yield from _mixed(rest)


def _mixed(entries: Sequence[Entry]) -> Iterator[Block]:
    block = Block([], {})
    for entry in entries:
        types = _types(entry.frame)
        if any(block.types.get(name, dtype) != dtype for name, dtype in types.items()):
            yield block
            block = Block([], {})
        block.entries.append(entry)
        block.types.update(types)
    if block.entries:
        yield block


def _names(frame: Frame) -> Collection[str]:
    return frame.metrics if frame.layout is None else frame.layout.metrics


def _types(frame: Frame) -> dict[str, str]:
    if frame.layout is not None:
        return {name: place.dtype.str for name, place in frame.layout.metrics.items()}
    return {name: column.values.dtype.str for name, column in frame.metrics.items()}
