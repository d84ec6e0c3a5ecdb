"""Fingerprints of many ranks put together into rounds: one round holds the same fingerprint of every rank."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from holter.fingerprint import BYTES, VERSION, WORDS, Slot
from holter.frame import Event
from holter.tensors import Layout
from numpy.typing import NDArray

from holter_monitor.stream.steps import Topology

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
STAGE_AXES = ("pp", "pipe", "pipeline", "stage")
DATA_AXES = ("dp", "edp", "ddp", "fsdp", "data", "replica", "replicate", "shard", "batch")
TENSOR_AXES = ("tp", "tensor", "mp")
MAX_LAYOUTS = 1024
MAX_RANKS = 1 << 20
MAX_OPEN_ROWS = 1 << 16
"""Fingerprints kept of rounds that are not complete: 32 MiB, and at least three rounds."""
MAX_OPEN_ROUNDS = 64
PATIENCE = 8
"""Rounds that one waits for ranks of which nothing was heard yet: their node may be slow, or they do not watch."""


def is_data(axis: str) -> bool:
    return axis.lower().split("_")[0] in DATA_AXES


@dataclass(slots=True)
class Round:
    """The same fingerprint of several ranks: `words` is (ranks, 64), `places` is (ranks, axes)."""

    index: int
    ranks: Ints
    words: Ints
    places: Ints
    axes: tuple[str, ...]
    layouts: dict[int, Layout]

    @property
    def step(self) -> int:
        """The step of most ranks."""
        values, counts = np.unique(self.words[:, Slot.STEP], return_counts=True)
        return int(values[counts.argmax()])

    @property
    def of_ranks(self) -> int:
        return len(self.ranks)

    def floats(self, slot: int, count: int) -> NDArray[np.float64]:
        """(ranks, count) from `slot` on, as the float32 they hold."""
        words = np.ascontiguousarray(self.words[:, slot : slot + (count + 1) // 2])
        return words.view(np.float32)[:, :count].astype(np.float64)

    def groups(self, vary: tuple[str, ...] | list[str], *, same_layout: bool = True) -> Ints:
        """(ranks,) group numbers from 0: ranks of a group differ only in their places on the axes `vary`."""
        key = np.zeros(self.of_ranks, np.int64)
        for column, axis in enumerate(self.axes):
            if axis not in vary:
                key = key * (int(self.places[:, column].max()) + 2) + self.places[:, column] + 1
        if same_layout:
            digests = np.unique(self.words[:, Slot.LAYOUT], return_inverse=True)[1]
            key = key * (int(digests.max()) + 1) + digests
        return np.unique(key, return_inverse=True)[1].astype(np.int64)

    def place(self, axis: str) -> Ints:
        return self.places[:, self.axes.index(axis)]

    def only(self, mask: Bools) -> Round:
        return Round(self.index, self.ranks[mask], self.words[mask], self.places[mask], self.axes, self.layouts)

    def by_layout(self) -> list[tuple[Layout, Round]]:
        """The round apart by layout (pipeline stages hold different tensors); ranks whose layout is not known are left out."""
        digests = np.unique(self.words[:, Slot.LAYOUT]).tolist()
        return [(self.layouts[digest], self.only(self.words[:, Slot.LAYOUT] == digest)) for digest in digests if digest in self.layouts]


@dataclass(slots=True)
class _Open:
    words: Ints
    arrived: Bools
    count: int = 0


@dataclass(kw_only=True)
class Rounds:
    """Collects fingerprints until a round is complete.

    A node whose agent was cut off delivers late, so a round waits for every rank that watches; for a rank that never said so it waits
    `PATIENCE` rounds, and for none longer than memory allows.
    """

    world_size: int = 1
    axes: list[str] = field(default_factory=list)
    places: dict[int, list[int]] = field(default_factory=dict)
    tables: dict[int, bytes] = field(default_factory=dict)
    open: dict[int, _Open] = field(default_factory=dict)
    done: int = -1
    """The newest round that was closed."""
    is_again: bool = False
    """Not the first attempt: what a rank says before its new `watch` belongs to the attempt before."""
    gone: list[int] = field(default_factory=list)
    """Ranks whose watch switched itself off."""
    damaged: int = 0
    """Events that held no fingerprint."""

    def learn(self, event: Event) -> bool:
        """Takes in a `watch` event. True where it tells of a new beginning: a rank that was already watched begins anew."""
        rank, attrs = event.get("rank"), event.get("attrs") or {}
        mesh = attrs.get("mesh")
        if not isinstance(rank, int) or not 0 <= rank < MAX_RANKS or not isinstance(mesh, dict):
            self.damaged += 1
            return False
        is_new = self.done >= 0 and rank in self.places
        if is_new:
            self.forget()
        try:
            place = {str(axis): (int(value[0]), int(value[1])) for axis, value in mesh.items()}
            self._settle(rank, place)
            if isinstance(attrs.get("table"), dict) and len(self.tables) < MAX_LAYOUTS:
                layout = Layout.from_json(attrs["table"])
                self.tables[layout.digest] = zlib.compress(json.dumps(attrs["table"]).encode(), 6)
        except (ValueError, TypeError, IndexError, KeyError):
            self.damaged += 1
        return is_new

    def forget(self) -> None:
        """A new attempt: other places, other layouts, rounds from 0."""
        self.axes, self.places, self.tables, self.open, self.done, self.gone = [], {}, {}, {}, -1, []
        self.is_again = True

    def leave(self, event: Event, topology: Topology) -> list[Round]:
        """Takes in a `watch_off` event: rounds wait for this rank no longer."""
        rank = event.get("rank")
        if isinstance(rank, int) and rank not in self.gone and len(self.gone) < 4096:
            self.gone.append(rank)
        return self._complete(topology)

    def _settle(self, rank: int, place: dict[str, tuple[int, int]]) -> None:
        for axis in place:
            if axis not in self.axes and len(self.axes) < 8:
                self.axes.append(axis)
        self.places[rank] = [place[axis][0] if axis in place else -1 for axis in self.axes]
        expected = 1
        for _, size in place.values():
            expected *= size
        if self.world_size <= 1 and expected <= MAX_RANKS:
            self.world_size = max(self.world_size, expected)

    def add(self, event: Event, topology: Topology) -> list[Round]:
        """Takes in a `fingerprint` event; answers the rounds that it closes, oldest first."""
        rank, words = event.get("rank"), words_of(event)
        if words is None or not isinstance(rank, int) or not 0 <= rank < MAX_RANKS:
            self.damaged += 1
            return []
        index = int(words[Slot.INDEX])
        if index <= self.done or (self.is_again and rank not in self.places):
            return []  # late, said twice after a replay, or of the attempt before
        if rank not in self.places and rank in topology.mesh_of:
            self._settle(rank, {axis: (place, place + 1) for axis, place in topology.mesh_of[rank].items()})
        here = self.open.get(index)
        is_new = here is None
        if here is None:
            size = max(self.world_size, rank + 1)
            here = self.open[index] = _Open(np.zeros((size, WORDS), np.int64), np.zeros(size, np.bool_))
        if rank >= len(here.arrived):
            more = rank + 1 - len(here.arrived)
            here.words = np.concatenate([here.words, np.zeros((more, WORDS), np.int64)])
            here.arrived = np.concatenate([here.arrived, np.zeros(more, np.bool_)])
        was_there = here.arrived[rank]
        here.words[rank], here.arrived[rank] = words, True
        here.count += 1 - int(was_there)
        # 16,384 ranks deliver one after the other: look at the open rounds only where this one can have closed some.
        is_full = here.count >= self.world_size - len(self.gone)
        return self._complete(topology) if is_full or is_new or len(self.open) > PATIENCE else []

    def _complete(self, topology: Topology) -> list[Round]:
        """Closes, oldest first, every round up to the newest that waits for nobody."""
        newest = max(self.open, default=-1)
        limit = max(3, min(MAX_OPEN_ROUNDS, MAX_OPEN_ROWS // max(1, self.world_size)))
        watching = len(self.places.keys() - set(self.gone)) if self.gone else len(self.places)
        full = -1
        for index, round_ in self.open.items():
            is_full = round_.count >= self.world_size - len(self.gone)
            is_due = index <= newest - PATIENCE and round_.count >= watching > 0
            if is_full or is_due or index <= newest - limit:
                full = max(full, index)
        return [self._close(old, topology) for old in sorted(self.open) if old <= full]

    def rest(self, topology: Topology) -> list[Round]:
        """Closes what is open: the run is over."""
        return [self._close(index, topology) for index in sorted(self.open)]

    def _close(self, index: int, topology: Topology) -> Round:
        found = self.open.pop(index)
        self.done = max(self.done, index)
        ranks = np.flatnonzero(found.arrived)
        width = len(self.axes)
        unknown = [-1] * width
        places = np.array([(self.places.get(rank, unknown) + unknown)[:width] for rank in ranks.tolist()], np.int64).reshape(
            len(ranks), width
        )
        return Round(index, ranks, found.words[ranks], places, tuple(self.axes), self._known_layouts())

    def _known_layouts(self) -> dict[int, Layout]:
        return {digest: _layout(table) for digest, table in self.tables.items()}


@lru_cache(maxsize=MAX_LAYOUTS)
def _layout(table: bytes) -> Layout:
    """What is kept is the compressed table; the layout that follows from it is made once."""
    return Layout.from_json(json.loads(zlib.decompress(table)))


def words_of(event: Event) -> Ints | None:
    """(64,) int64 of a `fingerprint` event; None where it holds none of this version."""
    text: Any = (event.get("attrs") or {}).get("data")
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        return None
    if len(raw) != BYTES:
        return None
    words = np.frombuffer(raw, "<i8")
    return words if words[Slot.VERSION] == VERSION and 0 <= words[Slot.INDEX] < 1 << 40 else None
