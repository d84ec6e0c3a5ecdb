"""Frames into columns: the rows of many frames as one Arrow table, at a few nanoseconds a point."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from holter.frame import Column, Frame


@dataclass(slots=True)
class Block:
    """Frames of one run in which a metric has one dtype."""

    frames: list[Frame]
    types: dict[str, str]
    """Metric → dtype, in order of appearance."""

    @property
    def attempts(self) -> list[str]:
        return [frame.attempt for frame in self.frames]

    @property
    def nodes(self) -> list[str]:
        return [frame.node for frame in self.frames]

    @property
    def present(self) -> dict[str, int]:
        """How many values of each metric were logged."""
        counts = dict.fromkeys(self.types, 0)
        for frame in self.frames:
            for name, column in frame.metrics.items():
                counts[name] += len(column.values) if column.present is None else int(column.present.sum())
        return counts

    def table(self, attempts: Mapping[str, int], nodes: Mapping[str, int], columns: Mapping[str, str]) -> pa.Table:
        """The Arrow table to insert: the keys, then each metric under its column's name."""
        lengths = [frame.rows for frame in self.frames]
        parts: dict[str, Any] = {
            "attempt": np.repeat(np.array([attempts[name] for name in self.attempts], np.int32), lengths),
            "node": np.repeat(np.array([nodes[name] for name in self.nodes], np.int32), lengths),
            "rank": np.concatenate([frame.rank for frame in self.frames]),
            "step": np.concatenate([frame.step for frame in self.frames]),
            "time_ns": np.concatenate([frame.time_ns for frame in self.frames]),
        }
        for name, column in columns.items():
            parts[column] = self._metric(name)
        return pa.table(parts)

    def _metric(self, name: str) -> pa.Array:
        dtype = np.dtype(self.types[name])
        found = [frame.metrics.get(name) for frame in self.frames]
        values = np.concatenate([_values(column, frame.rows, dtype) for column, frame in zip(found, self.frames, strict=True)])
        if all(column is not None and column.present is None for column in found):
            return pa.array(values)
        absent = np.concatenate([_absent(column, frame.rows) for column, frame in zip(found, self.frames, strict=True)])
        return pa.array(values, mask=absent)


def _values(column: Column | None, rows: int, dtype: np.dtype[Any]) -> Any:
    return np.zeros(rows, dtype) if column is None else column.values


def _absent(column: Column | None, rows: int) -> Any:
    if column is None:
        return np.ones(rows, bool)
    return np.zeros(rows, bool) if column.present is None else ~column.present


def blocks(frames: Sequence[Frame]) -> Iterator[Block]:
    """Frames with rows, cut where a metric changes its dtype (rare: it makes one more insert)."""
    block = Block([], {})
    for frame in frames:
        if frame.rows == 0:
            continue
        types = {name: column.values.dtype.str for name, column in frame.metrics.items()}
        if any(block.types.get(name, dtype) != dtype for name, dtype in types.items()):
            yield block
            block = Block([], {})
        block.frames.append(frame)
        block.types.update(types)
    if block.frames:
        yield block
