"""The wire: a frame is what a node agent ships, some columns of points and the events that came with them.

Layout (frame v1), little endian throughout::

    b"HLT1" | uint32 header length | header, UTF-8 JSON | column after column, in the header's order | uint32 CRC-32 of all before

The header: `run, attempt, node, boot, seq, sent_ns, rows, columns, events, dropped`. Each entry of `columns` is
`{"name", "dtype", "nulls"}`; the first three are `rank` (<i4), `step` (<i8) and `time_ns` (<i8). A column with `"nulls": true` is
followed by its validity bitmap, ceil(rows / 8) bytes, least significant bit first, 1 = present. A NaN that was logged (present, NaN)
and a value that was not logged (absent) stay two different things.

Both ends use this module: the node agent to write, the collector to read.
"""

from __future__ import annotations

import json
import math
import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from holter.errors import FrameError
from holter.layout import DTYPES, MAX_NAME, Layout, layout_of, shown

MAGIC = b"HLT1"
CONTENT_TYPE = "application/vnd.holter.frame.v1"
NODE_RANK = -1
"""The `rank` of a row that speaks of the whole node (host metrics), and of no rank in particular."""
NO_STEP = -1
"""The `step` of a row that was taken outside any step (a sampler's, before the first step)."""

MAX_ROWS = 1_000_000
MAX_SEQ = 2**63 - 1
_UNFIT = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
"""Escapes that may stand for what `_storable` leaves out; whole pairs look like halves to it."""
_PRELUDE = struct.Struct("<4sI")
_CRC = struct.Struct("<I")
_REMEMBERED = 32_768
"""Longer lists of columns are not remembered: 256 of them would be a hundred megabytes."""

Event: TypeAlias = dict[str, Any]
"""`{"event": word, "rank": int | None, "step": int | None, "time_ns": int, "attrs": {…}}`; the words are listed in docs/architecture.md."""


@dataclass(frozen=True, slots=True)
class Column:
    """One metric of a frame: `values` (rows long) and, where some rows did not log it, `present` (rows long, bool)."""

    values: NDArray[Any]
    present: NDArray[np.bool_] | None = None


class LaidColumns(Mapping[str, Column]):
    """The metrics of a frame that was decoded; a column is made when it is asked for.

    Whoever only takes frames in and stores them never asks. Made at once, the columns of two thousand frames a second were a third of the
    collector's CPU, and the half million objects that waited for the sample writer made each garbage collection stop it for 0.3 s.
    """

    __slots__ = ("_data", "_layout", "_start")

    def __init__(self, data: bytes, start: int, layout: Layout) -> None:
        self._data, self._start, self._layout = data, start, layout

    def __getitem__(self, name: str) -> Column:
        place, rows = self._layout.metrics[name], self._layout.rows
        values = np.frombuffer(self._data, place.dtype, rows, self._start + place.offset)
        return Column(values, None if place.validity is None else _present(self._data, rows, self._start + place.validity))

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout.metrics)

    def __len__(self) -> int:
        return len(self._layout.metrics)

    @property
    def packed(self) -> bytes:
        """All columns as they lie, `layout.size` bytes: those of frames of one layout, one behind the other, are an array of records."""
        return self._data[self._start : self._start + self._layout.size]


@dataclass(slots=True)
class Frame:
    """What a node agent ships at once. Identity is `(node, boot, seq)`: the collector stores each once, however often it arrives."""

    run: str
    attempt: str
    node: str
    boot: str
    seq: int
    sent_ns: int
    rank: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    step: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    time_ns: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    metrics: Mapping[str, Column] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    layout: Layout | None = field(default=None, repr=False, compare=False)
    """Of a frame that was decoded: frames with the same layout can be read as one."""

    @property
    def rows(self) -> int:
        return len(self.step)


def encode(frame: Frame) -> bytes:
    """The frame's bytes. Raises `FrameError` if a column's length or dtype does not fit."""
    keys = {
        "rank": Column(np.ascontiguousarray(frame.rank, "<i4")),
        "step": Column(np.ascontiguousarray(frame.step, "<i8")),
        "time_ns": Column(np.ascontiguousarray(frame.time_ns, "<i8")),
    }
    heads: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for name, column in {**keys, **frame.metrics}.items():
        dtype = column.values.dtype.newbyteorder("<").str
        if dtype not in DTYPES:
            raise FrameError(f"columns.{name}.dtype", f"{dtype} cannot travel", f"use one of {', '.join(DTYPES)}")
        if len(column.values) != frame.rows:
            raise FrameError(
                f"columns.{name}", f"{len(column.values)} values for {frame.rows} rows", "give each row a value or mark it absent"
            )
        nulls = column.present is not None and not bool(column.present.all())
        heads.append({"name": name, "dtype": dtype, "nulls": nulls})
        parts.append(np.ascontiguousarray(column.values, dtype).tobytes())
        if nulls and column.present is not None:
            parts.append(np.packbits(column.present, bitorder="little").tobytes())
    header = _header_bytes(frame, heads)
    body = b"".join((_PRELUDE.pack(MAGIC, len(header)), header, *parts))
    return body + _CRC.pack(zlib.crc32(body))


def _header_bytes(frame: Frame, columns: Sequence[Mapping[str, Any]]) -> bytes:
    header = {
        "run": frame.run,
        "attempt": frame.attempt,
        "node": frame.node,
        "boot": frame.boot,
        "seq": frame.seq,
        "sent_ns": frame.sent_ns,
        "rows": frame.rows,
        "columns": columns,
        "events": frame.events,
        "dropped": frame.dropped,
    }
    try:
        # Non-finite numbers inside an event travel as strings; Python's own NaN literal is not JSON.
        return json.dumps(finite(header), separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise FrameError("header", str(error), "events hold only JSON values") from error


def finite(value: Any) -> Any:
    """`value` with every non-finite float replaced by the string "NaN", "Infinity" or "-Infinity"."""
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        if value in (float("inf"), float("-inf")):
            return "Infinity" if value > 0 else "-Infinity"
        return value
    if isinstance(value, dict):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value


def decode(data: bytes) -> Frame:
    """The frame in `data`. Arrays are read-only views into it. Raises `FrameError`; never anything else, whatever the bytes."""
    start = _header_end(data)
    header, layout = _read_header(data[_PRELUDE.size : start])
    rows = layout.rows
    layout.check(len(data) - _CRC.size - start)
    rank, step, time_ns = (np.frombuffer(data, place.dtype, rows, start + place.offset) for place in layout.keys)
    return _assemble(header, rank=rank, step=step, time_ns=time_ns, metrics=LaidColumns(data, start, layout), layout=layout)


def _present(data: bytes, rows: int, offset: int) -> NDArray[np.bool_]:
    bits = np.frombuffer(data, np.uint8, (rows + 7) // 8, offset)
    return np.unpackbits(bits, count=rows, bitorder="little").view(np.bool_)


def _header_end(data: bytes) -> int:
    if len(data) < _PRELUDE.size + _CRC.size:
        raise FrameError("body", f"{len(data)} bytes are too few", "a frame is at least 12 bytes: magic, header length, CRC-32")
    magic, length = _PRELUDE.unpack_from(data)
    if magic != MAGIC:
        raise FrameError("magic", f"starts with {magic!r}", f"a frame v1 starts with {MAGIC!r}")
    (crc,) = _CRC.unpack_from(data, len(data) - _CRC.size)
    if zlib.crc32(memoryview(data)[: -_CRC.size]) != crc:
        raise FrameError("crc", "CRC-32 does not match the bytes before it", "the frame was damaged on its way: send it again")
    end: int = _PRELUDE.size + length
    if end > len(data) - _CRC.size:
        raise FrameError("header", f"{length} bytes announced, {len(data) - _PRELUDE.size - _CRC.size} there", "send the whole header")
    return end


def _read_header(data: bytes) -> tuple[dict[str, Any], Layout]:
    try:
        text = data.decode("utf-8")
        header, layout = _by_known_columns(text) or _by_its_words(text)
    except (ValueError, RecursionError) as error:
        raise FrameError("header", f"not JSON ({error})", "the header is one UTF-8 JSON object") from error
    if _UNFIT.search(text):
        header |= {key: _storable(header[key]) for key in ("events", "dropped") if key in header}
    return header, layout


def _by_known_columns(text: str) -> tuple[dict[str, Any], Layout] | None:
    """Nine tenths of a header are its columns, and an agent's next frame has the same: where they stand as `encode` writes them, behind plain values
    of the header itself, they are looked up as text, and the rest is read without them."""
    before, _, rest = text.partition(',"columns":[')
    columns, _, after = rest.partition("]")
    is_flat = before.rfind("{") == 0 and "[" not in before
    if not is_flat or len(columns) > _REMEMBERED or not after.startswith((',"', "}")):
        return None
    with suppress(ValueError, RecursionError):
        header = json.loads(before + after)
        if "columns" not in header:
            return header, _layout(columns, _count(header, "rows", MAX_ROWS))
    return None


@lru_cache(maxsize=256)
def _layout(columns: str, rows: int) -> Layout:
    return layout_of(json.loads(f"[{columns}]"), rows)


def _by_its_words(text: str) -> tuple[dict[str, Any], Layout]:
    header = json.loads(text)
    if not isinstance(header, dict):
        raise FrameError("header", f"a {type(header).__name__}", "the header is one JSON object")
    return header, layout_of(header.get("columns"), _count(header, "rows", MAX_ROWS))


def _storable(value: Any) -> Any:
    """The value without what no database takes as text: NUL and halves of surrogate pairs, which exceptions and file names do carry. A frame that could be
    taken and never be stored would hold up all that come after it."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {_storable(key): _storable(each) for key, each in value.items()}
    return [_storable(each) for each in value] if isinstance(value, list) else value


def _assemble(header: dict[str, Any], **arrays: Any) -> Frame:
    events, dropped = header.get("events", []), header.get("dropped", {})
    if not isinstance(events, list) or not all(_is_event(event) for event in events):
        raise FrameError("events", "an entry is no event", 'an event is {"event", "rank", "step", "time_ns", "attrs"}')
    if not isinstance(dropped, dict) or not all(_is_count(count) for count in dropped.values()):
        raise FrameError("dropped", f"{shown(dropped)}", "counts by reason: {reason: whole number}")
    return Frame(
        run=_name(header, "run"),
        attempt=_name(header, "attempt"),
        node=_name(header, "node"),
        boot=_name(header, "boot"),
        seq=_count(header, "seq", MAX_SEQ),
        sent_ns=_count(header, "sent_ns", MAX_SEQ),
        events=events,
        dropped=dropped,
        **arrays,
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_SEQ


def _is_event(event: Any) -> bool:
    if not isinstance(event, dict):
        return False
    word, attrs = event.get("event"), event.get("attrs", {})
    whole = all(event.get(key) is None or _is_signed(event[key]) for key in ("rank", "step", "time_ns"))
    return isinstance(word, str) and 0 < len(word) <= MAX_NAME and isinstance(attrs, dict) and whole


def _is_signed(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -MAX_SEQ <= value <= MAX_SEQ


def _name(header: dict[str, Any], key: str) -> str:
    value = header.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise FrameError(key, f"{shown(value)} is no name", f"a name is 1 to {MAX_NAME} printable characters")
    return value


def _count(header: dict[str, Any], key: str, limit: int) -> int:
    value = header.get(key)
    if not _is_count(value) or value > limit:  # type: ignore[operator]
        raise FrameError(key, f"{shown(value)}", f"a whole number from 0 to {limit}")
    return int(value)  # type: ignore[arg-type]
