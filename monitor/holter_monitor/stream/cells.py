"""The rows of frames as arrays, and how they get into a step's matrix of metrics and ranks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from holter.frame import NODE_RANK, Frame, LaidColumns
from numpy.typing import NDArray

from holter_monitor.stream.steps import Mask, Sample, Values

Keys = NDArray[np.int64]
Received: TypeAlias = "tuple[Frame, float]"
"""A frame and when its log entry says that it came."""
SAMPLED = ("gpu_", "process_", "host_")
"""Prefixes of the metrics that a sampler took: their rows do not say that the rank has reached the step."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of some frames, one frame's behind the other's: whose, of which step, and when."""

    frames: Sequence[Frame]
    starts: Keys
    """Where each frame's rows begin, and behind the last one's."""
    rank: Keys
    step: Keys
    time_ns: Keys
    received: Values
    """Of each row when its frame came."""

    @classmethod
    def of(cls, arrivals: Sequence[Received]) -> Rows:
        frames = [frame for frame, _ in arrivals]
        lengths = [frame.rows for frame in frames]
        rank, step, time_ns = (np.concatenate([getattr(frame, key) for frame in frames]) for key in ("rank", "step", "time_ns"))
        received = np.repeat([received for _, received in arrivals], lengths)
        return cls(frames, np.cumsum([0, *lengths]), rank.astype(np.int64), step, time_ns, received)

    def first(self, frames: int) -> Rows:
        """Those of the first so many frames."""
        if frames == len(self.frames):
            return self
        end = self.starts[frames]
        keys = (self.rank[:end], self.step[:end], self.time_ns[:end], self.received[:end])
        return Rows(self.frames[:frames], self.starts[: frames + 1], *keys)

    def frame_at(self, row: int) -> int:
        """Which frame the row is of."""
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def block(self, places: Mapping[str, int]) -> Block:
        """Their values of the metrics that have a place."""
        alike: dict[int, list[int]] = {}
        for index, frame in enumerate(self.frames):
            alike.setdefault(id(frame.layout) if isinstance(frame.metrics, LaidColumns) else -1 - index, []).append(index)
        names = list(dict.fromkeys(name for of in alike.values() for name in self.frames[of[0]].metrics if name in places))
        if len(alike) == 1:
            values, present = _read(self.frames, names)
        else:
            values, present = np.full((len(names), len(self.rank)), np.nan), np.zeros((len(names), len(self.rank)), np.bool_)
            for of in alike.values():
                mine = np.array([index for index, name in enumerate(names) if name in self.frames[of[0]].metrics], np.intp)
                rows = np.concatenate([np.arange(self.starts[index], self.starts[index + 1]) for index in of])
                cells = np.ix_(mine, rows)
                values[cells], present[cells] = _read([self.frames[index] for index in of], [names[index] for index in mine.tolist()])
        sampled = np.array([name.startswith(SAMPLED) for name in names], np.bool_)
        return Block(names, np.array([places[name] for name in names], np.int64), sampled, values, present)

    def samples(self, attempt: str, block: Block) -> list[list[Sample]]:
        """What each frame says of its host; `block` holds all metrics of these rows."""
        found: list[list[Sample]] = [[] for _ in self.frames]
        hosts = np.flatnonzero(self.rank == NODE_RANK)
        values, present = block.values[:, hosts].T.tolist(), block.present[:, hosts].T.tolist()
        for row, numbers, is_there in zip(hosts.tolist(), values, present, strict=True):
            at = self.frame_at(row)
            frame, logged = self.frames[at], dict(itertools.compress(zip(block.names, numbers, strict=True), is_there))
            told = {name: logged[name] for name in frame.metrics if name in logged}
            found[at].append(Sample(frame.node, attempt, int(self.step[row]), int(self.time_ns[row]) / 1e9, told))
        return found


@dataclass(frozen=True, slots=True)
class Block:
    """Values of rows: `values` and `present` are (metrics, rows), `places` the metrics' rows in the matrices."""

    names: list[str]
    places: Keys
    sampled: Mask
    """The metrics that a sampler took."""
    values: Values
    present: Mask

    @property
    def own(self) -> Mask:
        """The rows that say that their rank has reached their step: those of which a metric is its own, or that are empty."""
        own: Mask = np.any(self.present[~self.sampled], axis=0)
        sampled: Mask = np.any(self.present[self.sampled], axis=0)
        return own | ~sampled

    def of_samplers(self) -> Block:
        which = self.sampled
        return Block(
            list(itertools.compress(self.names, which.tolist())), self.places[which], which[which], self.values[which], self.present[which]
        )

    def write(self, matrix: Values, present: Mask, chosen: NDArray[np.intp], ranks: Keys) -> None:
        """The rows `chosen`, of `ranks`, in order, so that the newest value of a cell counts; what a row did not log stays as it was."""
        if self.present.all():
            cells = (self.places[:, None], ranks)
            matrix[cells] = self.values[:, chosen]
        else:
            metric, row = np.nonzero(self.present[:, chosen])
            cells = (self.places[metric], ranks[row])
            matrix[cells] = self.values[metric, chosen[row]]
        present[cells] = True


def _read(frames: Sequence[Frame], names: Sequence[str]) -> tuple[Values, Mask]:
    """The metrics `names` of frames of one layout, or of one frame."""
    rows = sum(frame.rows for frame in frames)
    values, present = np.empty((len(names), rows)), np.ones((len(names), rows), np.bool_)
    laid, layout = [frame.metrics for frame in frames if isinstance(frame.metrics, LaidColumns)], frames[0].layout
    if layout is None or len(laid) < len(frames):
        for index, name in enumerate(names):
            column = frames[0].metrics[name]
            values[index] = column.values
            if column.present is not None:
                present[index] = column.present
        return values, present
    records = np.frombuffer(b"".join([columns.packed for columns in laid]), np.uint8).reshape(len(laid), layout.size)
    for index, name in enumerate(names):
        place = layout.metrics[name]
        part = records[:, place.offset : place.offset + place.dtype.itemsize * layout.rows]
        values[index] = np.ascontiguousarray(part).view(place.dtype).reshape(-1)
        if place.validity is not None:
            bits = records[:, place.validity : place.validity + (layout.rows + 7) // 8]
            present[index] = np.unpackbits(bits, axis=1, count=layout.rows, bitorder="little").reshape(-1)
    return values, present


def fit(matrix: Values, present: Mask, metrics: int, ranks: int) -> tuple[Values, Mask]:
    if matrix.shape == (metrics, ranks):
        return matrix, present
    wide, mask = np.full((metrics, ranks), np.nan), np.zeros((metrics, ranks), np.bool_)
    wide[: matrix.shape[0], : matrix.shape[1]] = matrix
    mask[: matrix.shape[0], : matrix.shape[1]] = present
    return wide, mask
