"""What a rank's tensors look like to the other wire: which lie how on the mesh, and which of them fingerprint `index` looks at.

Everything follows from the layout and the index, so ranks draw the same samples without talking to each other, and the collector knows which
tensors a checksum stands for.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from holter.checksum import ROW
from holter.fingerprint import BUCKETS, SKETCH

MAX_ROWS: Final = 32_768
"""Rows of a piece: a larger tensor is taken in several pieces."""
MAX_FAMILY: Final = 16
"""Tensors of a family that one shard sketch samples: bounds the kernel launches."""
SAMPLE_ROWS: Final = 64
SAMPLE_COLUMNS: Final = 256
_WIDTHS: Final = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "bfloat16": 2, "float16": 2, "int16": 2}
_MLP: Final = re.compile(
    r"mlp|ffn|feed_?forward|fc_?[12]|linear_fc|\bw[123]\b|_w[123]\b|gate_?|up_proj|down_proj|intermediate|h_to_4h|expert", re.I
)
_VOCABULARY: Final = re.compile(r"emb|wte|lm_head|output_layer|unembed|\bhead\b", re.I)


@dataclass(frozen=True, slots=True)
class Tensor:
    """One watched tensor. `axes`: mesh axis -> "R" replicated, "S0" sharded along dimension 0, "B4" replicated in 4 blocks, "P", "?"."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    axes: Mapping[str, str]
    source: str

    @property
    def size(self) -> int:
        count = 1
        for length in self.shape:
            count *= length
        return count

    @property
    def lanes(self) -> int:
        """32-bit lanes of its bytes; where they do not come out even, one lane an element."""
        width = _WIDTHS.get(self.dtype, 1)
        return self.size * width // 4 if self.is_packed else self.size

    @property
    def is_packed(self) -> bool:
        return (self.size * _WIDTHS.get(self.dtype, 1)) % 4 == 0 and _WIDTHS.get(self.dtype, 1) > 1

    @property
    def family(self) -> str:
        """The name with its numbers starred: `layers.*.mlp.up.weight`."""
        return re.sub(r"(?<![A-Za-z0-9])\d+(?![A-Za-z0-9])", "*", self.name)

    @property
    def replicated(self) -> tuple[str, ...]:
        return tuple(sorted(axis for axis, how in self.axes.items() if how == "R"))

    @property
    def sharded(self) -> tuple[str, ...]:
        """The axes over which its parts should be unlike; "?" is looked at, and spoken of softly."""
        return tuple(sorted(axis for axis, how in self.axes.items() if how[:1] in "SB?"))

    def element(self, lane: int, bit: int) -> tuple[int, int]:
        """`(element, bit)` of one of its lanes: two bf16 share a lane, a float64 has two."""
        width = _WIDTHS.get(self.dtype, 1)
        if not self.is_packed or width == 4:
            return lane, bit
        byte = lane * 4 + bit // 8
        return byte // width, (byte % width) * 8 + bit % 8


@dataclass(frozen=True, slots=True)
class Piece:
    """Some consecutive lanes of a tensor."""

    tensor: Tensor
    start: int
    lanes: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one fingerprint takes of a block. All its tensors are replicated over the same `axes`."""

    axes: tuple[str, ...]
    pieces: tuple[Piece, ...]

    def buckets(self, index: int) -> list[list[Piece]]:
        """Who shares a checksum: drawn anew for each fingerprint, so that the bad buckets of several name one tensor."""
        found: list[list[Piece]] = [[] for _ in range(BUCKETS)]
        for piece in self.pieces:
            seed = f"{index}|{piece.tensor.name}|{piece.start}".encode()
            found[hashlib.blake2b(seed, digest_size=1).digest()[0] % BUCKETS].append(piece)
        return found


@dataclass(frozen=True, slots=True)
class Family:
    """Tensors of one role and one local shape, sharded over the same axes: `layers.*.mlp.up.weight`."""

    name: str
    tensors: tuple[Tensor, ...]
    axes: tuple[str, ...]
    rows: int
    columns: int

    def sample(self, index: int) -> tuple[list[int], NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
        """What fingerprint `index` takes: places of tensors, rows, columns, and the packed signs of the projection (same on all ranks)."""
        rng = np.random.Generator(np.random.Philox(key=[index, 0x401734]))
        rows = np.sort(rng.choice(self.rows, min(SAMPLE_ROWS, self.rows & ~1), replace=False))
        columns = np.sort(rng.choice(self.columns, min(SAMPLE_COLUMNS, self.columns & ~1), replace=False))
        places = np.sort(rng.choice(len(self.tensors), min(MAX_FAMILY, len(self.tensors)), replace=False))
        count = (len(rows) // 2) * (len(columns) // 2)
        signs = np.frombuffer(rng.bytes(count * SKETCH // 8), np.uint8)
        return places.tolist(), rows, columns, signs

    @property
    def sampled(self) -> int:
        """Double differences that one sketch takes."""
        cells = (min(SAMPLE_ROWS, self.rows & ~1) // 2) * (min(SAMPLE_COLUMNS, self.columns & ~1) // 2)
        return cells * min(MAX_FAMILY, len(self.tensors))


@dataclass(frozen=True)
class Layout:
    """All watched tensors of a rank, in order, and what follows from them: the rotation and the families."""

    tensors: tuple[Tensor, ...]
    fraction: float = 0.1
    model_axes: tuple[str, ...] = ()
    """Axes whose replicas are small and looked at in every fingerprint: tensor, context, expert parallel."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Mesh axis -> number of ranks along it."""
    tied: tuple[tuple[str, ...], ...] = ()
    """Groups of names that are one tensor, on whichever pipeline stages they live."""

    def to_json(self) -> dict[str, Any]:
        """Short: names, with dtype, axes and source listed once each."""
        kinds: dict[str, int] = {}
        rows = []
        for tensor in self.tensors:
            kind = json.dumps([tensor.dtype, list(tensor.shape), dict(tensor.axes), tensor.source])
            rows.append([tensor.name, kinds.setdefault(kind, len(kinds))])
        about = {
            "fraction": self.fraction,
            "model_axes": list(self.model_axes),
            "sizes": dict(self.sizes),
            "tied": [list(g) for g in self.tied],
        }
        return {**about, "kinds": [json.loads(kind) for kind in kinds], "tensors": rows}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Layout:
        """Raises `ValueError` for anything that `to_json` did not make."""
        try:
            kinds = [(str(d), tuple(int(n) for n in s), {str(a): str(h) for a, h in x.items()}, str(o)) for d, s, x, o in table["kinds"]]
            tensors = tuple(Tensor(str(name), *kinds[kind]) for name, kind in table["tensors"])
            axes = tuple(str(axis) for axis in table["model_axes"])
            return cls(
                tensors,
                float(table["fraction"]),
                axes,
                {str(a): int(n) for a, n in table["sizes"].items()},
                tuple(tuple(map(str, group)) for group in table.get("tied", ())),
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise ValueError(f"no layout: {type(error).__name__}: {error}") from error

    @cached_property
    def digest(self) -> int:
        """A signed 64-bit hash; equal on all ranks that hold parts of the same shapes."""
        text = json.dumps(self.to_json(), sort_keys=True).encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)

    @cached_property
    def budget(self) -> int:
        """Lanes that a fingerprint's data block takes."""
        return max(ROW, int(self.fraction * sum(tensor.lanes for tensor in self.tensors)))

    @cached_property
    def data_chunks(self) -> list[Chunk]:
        """The rotation over all tensors, less those that the model block holds in every fingerprint anyway."""
        always = {piece.tensor.name for piece in self.model_chunks[0].pieces} if len(self.model_chunks) == 1 else set()
        return _chunks([tensor for tensor in self.tensors if tensor.name not in always] or self.tensors, self.budget)

    @cached_property
    def model_chunks(self) -> list[Chunk]:
        wide = set(self.model_axes)
        return _chunks([tensor for tensor in self.tensors if wide & set(tensor.replicated)], max(self.budget, 1 << 18))

    def data_chunk(self, index: int) -> Chunk:
        return self.data_chunks[index % len(self.data_chunks)] if self.data_chunks else Chunk((), ())

    def model_chunk(self, index: int) -> Chunk:
        return self.model_chunks[index % len(self.model_chunks)] if self.model_chunks else Chunk((), ())

    @cached_property
    def families(self) -> list[Family]:
        """In the order of rotation: MLP first, where duplicated shards stay duplicated however long the training has run; vocabulary last."""
        groups: dict[tuple[Any, ...], list[Tensor]] = {}
        for tensor in self.tensors:
            rows, columns = _matrix(tensor.shape)
            if tensor.sharded and rows >= 2 and columns >= 2:
                groups.setdefault((tensor.family, rows, columns, tuple(sorted(tensor.axes.items()))), []).append(tensor)
        found = [Family(key[0], tuple(members), members[0].sharded, key[1], key[2]) for key, members in groups.items()]
        return sorted(found, key=lambda family: (_turn(family.name), family.name, family.rows, family.columns))

    def tied_pieces(self, index: int) -> list[Piece]:
        """The part of each tied tensor of this rank that fingerprint `index` looks at; the same part on every stage."""
        names = {name for group in self.tied for name in group}
        parts = [_pieces(tensor, MAX_ROWS * ROW) for tensor in self.tensors if tensor.name in names]
        return [pieces[index % len(pieces)] for pieces in parts]

    def family(self, index: int) -> Family | None:
        return self.families[index % len(self.families)] if self.families else None


def _matrix(shape: Sequence[int]) -> tuple[int, int]:
    """A tensor as rows and columns: the last dimension, and all before it."""
    if len(shape) < 2:
        return 1, (shape[0] if shape else 1)
    rows = 1
    for length in shape[:-1]:
        rows *= length
    return rows, shape[-1]


def _turn(family: str) -> int:
    return 2 if _VOCABULARY.search(family) else 0 if _MLP.search(family) else 1


def _chunks(tensors: Sequence[Tensor], budget: int) -> list[Chunk]:
    """Fills chunks of about `budget` lanes, those of one set of axes together, then deals them out in turn."""
    classes: dict[tuple[str, ...], list[Chunk]] = {}
    for axes in sorted({tensor.replicated for tensor in tensors}, key=lambda axes: (-len(axes), axes)):
        pieces = [piece for tensor in tensors if tensor.replicated == axes for piece in _pieces(tensor, budget)]
        filling: list[Piece] = []
        filled = 0
        for piece in pieces:
            if filling and filled + piece.lanes > budget * 1.25:
                classes.setdefault(axes, []).append(Chunk(axes, tuple(filling)))
                filling, filled = [], 0
            filling.append(piece)
            filled += piece.lanes
        if filling:
            classes.setdefault(axes, []).append(Chunk(axes, tuple(filling)))
    spread = [((place + 0.5) / len(chunks), axes, chunk) for axes, chunks in classes.items() for place, chunk in enumerate(chunks)]
    return [chunk for _, _, chunk in sorted(spread, key=lambda entry: entry[:2])]


def _pieces(tensor: Tensor, budget: int) -> list[Piece]:
    limit = min(MAX_ROWS * ROW, max(ROW, budget // ROW * ROW))
    return [Piece(tensor, start, min(limit, tensor.lanes - start)) for start in range(0, tensor.lanes, limit)]


def rows_of(bucket: Sequence[Piece]) -> int:
    """Rows that a bucket fills: the whole rows of each piece, then what is left of all of them together."""
    return sum(piece.lanes // ROW for piece in bucket) + -(-sum(piece.lanes % ROW for piece in bucket) // ROW)


def place_of(bucket: Sequence[Piece], row: int, column: int) -> tuple[Tensor, int] | None:
    """The tensor, and the lane in it, that stands at a place of a bucket."""
    for piece in bucket:
        whole = piece.lanes // ROW
        if row < whole:
            return piece.tensor, piece.start + row * ROW + column
        row -= whole
    left = row * ROW + column
    for piece in bucket:
        rest = piece.lanes % ROW
        if left < rest:
            return piece.tensor, piece.start + piece.lanes // ROW * ROW + left
        left -= rest
    return None
