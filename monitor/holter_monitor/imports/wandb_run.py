"""wandb's offline runs (`run-*.wandb`): a LevelDB log of protobuf records, read without wandb (wandb/proto/wandb_internal.proto; leveldb/doc/log_format.md)."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import BinaryIO, ClassVar

from holter_monitor.imports.files import LogFile
from holter_monitor.imports.jsonl import from_row
from holter_monitor.imports.protobuf import WireError, fields, nested, signed
from holter_monitor.imports.records import Head, Record
from holter_monitor.imports.tables import CellError, Columns

_MAGIC = b":W&B" + struct.pack("<H", 0xBEE1)
_BLOCK = 32768
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_HISTORY, _ITEM, _STEP = 2, 1, 2
"""Field numbers: Record.history, HistoryRecord.item, HistoryRecord.step."""
_KEY, _NESTED_KEY, _VALUE_JSON = 1, 2, 16
"""Field numbers of a HistoryItem."""


class WandbRun:
    name: ClassVar[str] = "wandb"

    def recognises(self, head: Head) -> bool:
        return head.start.startswith(_MAGIC)

    def read(self, log: LogFile, columns: Mapping[str, str]) -> Iterator[Record]:
        known = Columns(columns)
        with log.open() as stream:
            for index, message in enumerate(_messages(log, stream), start=1):
                try:
                    row = _history(message)
                    if row:
                        yield from_row(row, known)
                except (WireError, CellError, ValueError) as error:
                    log.broken.add(index, str(error))
        log.notes += known.renamed


def _history(message: bytes) -> dict[str, object]:
    row: dict[str, object] = {}
    for history in (nested(value) for number, value in fields(message) if number == _HISTORY):
        for number, value in fields(history):
            if number == _ITEM:
                key, cell = _item(nested(value))
                row[key] = cell
            elif number == _STEP:
                row.setdefault("_step", next((signed(place) for part, place in fields(nested(value)) if part == 1), 0))
    return row


def _item(item: bytes) -> tuple[str, object]:
    keys: list[str] = []
    cell: object = None
    for number, value in fields(item):
        if number in (_KEY, _NESTED_KEY):
            keys.append(nested(value).decode("utf-8", "replace"))
        elif number == _VALUE_JSON:
            cell = json.loads(nested(value))
    return "/".join(key for key in keys if key), None if isinstance(cell, (dict, list)) and not cell else cell


def _messages(log: LogFile, stream: BinaryIO) -> Iterator[bytes]:
    """Whole messages, put together from the fragments of the blocks. A damaged fragment loses its message, not the file."""
    stream.read(len(_MAGIC) + 1)
    place, message, index = len(_MAGIC) + 1, b"", 0
    while True:
        room = _BLOCK - place % _BLOCK
        if room < 7:
            stream.read(room)
            place += room
            continue
        head = stream.read(7)
        if len(head) < 7:
            return
        crc, length, kind = struct.unpack("<IHB", head)
        piece = stream.read(length)
        place += 7 + length
        if len(piece) < length:
            log.notes.append("the last record is not written to its end")
            return
        if kind == 0 and length == 0:
            continue
        if kind not in (_FULL, _FIRST, _MIDDLE, _LAST) or crc != zlib.crc32(piece, zlib.crc32(bytes([kind]))):
            index += 1
            log.broken.add(index, "a record does not match its checksum")
            # Where a fragment starts is lost with its length: the next block starts anew.
            rest = (_BLOCK - place % _BLOCK) % _BLOCK
            stream.read(rest)
            place += rest
            message = b""
            continue
        message = piece if kind in (_FULL, _FIRST) else message + piece
        if kind in (_FULL, _LAST):
            index += 1
            yield message
            message = b""
