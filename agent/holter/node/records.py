"""One frame on disk.

A record is `magic, payload length, note length, number, class, rows, events, CRC-32`, its payload (a frame) and its note (how far the
rings had been read when it was written).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

_MAGIC = b"HSPL"
_HEAD = struct.Struct("<4sIIQIIII")
_MAX_PAYLOAD = 64 * 1024 * 1024


class Class(IntEnum):
    """What a frame carries; under pressure the highest number goes first, and of one class the oldest."""

    EVENTS = 0
    POINTS = 1
    SAMPLES = 2


@dataclass(frozen=True, slots=True)
class Record:
    """One frame in the spool. `rows` and `events` are counted here, so that what is dropped can be told without reading it."""

    number: int
    kind: Class
    rows: int
    events: int
    payload: bytes
    note: bytes = b""

    @property
    def size(self) -> int:
        return _HEAD.size + len(self.payload) + len(self.note)


def pack(record: Record) -> bytes:
    head = _HEAD.pack(_MAGIC, len(record.payload), len(record.note), record.number, record.kind, record.rows, record.events, 0)
    body = record.payload + record.note
    crc = zlib.crc32(body, zlib.crc32(head[:-4]))
    return head[:-4] + struct.pack("<I", crc) + body


def scan(data: bytes) -> Iterator[Record]:
    """The whole records in a segment's bytes, whatever else is in it."""
    at = 0
    while (at := data.find(_MAGIC, at)) >= 0:
        record = _record(data, at)
        if record is None:
            at += 1
            continue
        yield record
        at += record.size


def _record(data: bytes, at: int) -> Record | None:
    if at + _HEAD.size > len(data):
        return None
    _, length, note, number, kind, rows, events, crc = _HEAD.unpack_from(data, at)
    middle = at + _HEAD.size + length
    if length > _MAX_PAYLOAD or middle + note > len(data) or kind > Class.SAMPLES:
        return None
    if zlib.crc32(data[at + _HEAD.size : middle + note], zlib.crc32(data[at : at + _HEAD.size - 4])) != crc:
        return None
    return Record(number, Class(kind), rows, events, data[at + _HEAD.size : middle], data[middle : middle + note])
