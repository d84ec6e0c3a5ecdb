"""TensorBoard event files: TFRecords of Event messages, read without TensorFlow (formats: tensorflow/core/lib/io/record_writer.h, event.proto)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import BinaryIO, ClassVar

from holter_monitor.imports.files import LogFile
from holter_monitor.imports.names import target
from holter_monitor.imports.protobuf import WireError, fields, nested, real, signed
from holter_monitor.imports.records import Head, LogError, Record

_RECORD_BYTES = 64 << 20
_FLOAT, _DOUBLE, _INT32, _INT64 = 1, 2, 3, 9
"""DataType of a TensorProto."""


class TensorBoard:
    name: ClassVar[str] = "tfevents"

    def recognises(self, head: Head) -> bool:
        return len(head.start) >= 12 and struct.unpack("<I", head.start[8:12])[0] == masked_crc(head.start[:8])

    def read(self, log: LogFile, columns: Mapping[str, str]) -> Iterator[Record]:
        """One record a step: the scalars that were written one after another under one step number. Several event files of a folder follow
        one another; a restart shows in them as a step that goes back."""
        pending: Record | None = None
        for path in sorted(log.parts or (log.path,), key=lambda part: part.name):
            with log.open(path) as stream:
                for index, event in enumerate(_events(log, stream), start=1):
                    try:
                        made = _record(event, columns)
                    except WireError as error:
                        log.broken.add(index, f"{error}; expected an Event message")
                        continue
                    if not made.values:
                        continue
                    if pending is not None and pending.step == made.step and not pending.values.keys() & made.values.keys():
                        pending.values.update(made.values)
                        continue
                    if pending is not None:
                        yield pending
                    pending = made
        if pending is not None:
            yield pending


def _record(event: bytes, mapped: Mapping[str, str]) -> Record:
    made = Record({}, step=0)
    for number, value in fields(event):
        if number == 1:
            made.time = real(value, 8)
        elif number == 2:
            made.step = signed(value)
        elif number == 5:
            for _, summary in ((n, nested(v)) for n, v in fields(nested(value)) if n == 1):
                _take(made, summary, mapped)
    return made


def _take(made: Record, summary: bytes, mapped: Mapping[str, str]) -> None:
    tag, scalar = "", None
    for number, value in fields(summary):
        if number == 1:
            tag = nested(value).decode("utf-8", "replace")
        elif number == 2:
            scalar = real(value, 4)
        elif number == 8:
            scalar = _tensor(nested(value))
    if scalar is not None:
        meaning = target(tag, mapped)
        if not meaning.role:
            made.values[meaning.metric] = scalar * meaning.scale


def _tensor(message: bytes) -> float | None:
    """The one number of a rank-0 tensor (TF2 and Keras write scalars so); None for anything else."""
    kind, content = 0, b""
    for number, value in fields(message):
        if number == 1:
            kind = signed(value)
        elif number in (4, 5, 6, 10) and not content:
            content = value if isinstance(value, bytes) else value.to_bytes(8 if number in (6, 10) else 4, "little")
    shapes = {_FLOAT: ("<f", 4), _DOUBLE: ("<d", 8), _INT32: ("<i", 4), _INT64: ("<q", 8)}
    layout, width = shapes.get(kind, ("", -1))
    return float(struct.unpack(layout, content)[0]) if len(content) == width else None


def _events(log: LogFile, stream: BinaryIO) -> Iterator[bytes]:
    index = 0
    while head := stream.read(12):
        index += 1
        if len(head) < 12 or struct.unpack("<I", head[8:])[0] != masked_crc(head[:8]):
            raise _cut(log, index, "a record's length does not match its checksum")
        length = struct.unpack("<Q", head[:8])[0]
        if length > _RECORD_BYTES:
            raise _cut(log, index, f"a record of {length} bytes")
        body = stream.read(length + 4)
        if len(body) < length + 4:
            # A run that is still writing, or was killed, ends like this: what stands before is whole.
            log.notes.append(f"event {index} is not written to its end")
            return
        if struct.unpack("<I", body[length:])[0] != masked_crc(body[:length]):
            log.broken.add(index, "an event does not match its checksum")
            continue
        yield body[:length]


def _cut(log: LogFile, index: int, reason: str) -> LogError:
    return log.failed(f"{reason} (event {index})", "a TensorBoard event file, whole")


def _table() -> list[int]:
    table = []
    for byte in range(256):
        rest = byte
        for _ in range(8):
            rest = (rest >> 1) ^ (0x82F63B78 if rest & 1 else 0)
        table.append(rest)
    return table


_CRC = _table()


def masked_crc(piece: bytes) -> int:
    """CRC-32C, rotated and offset as TFRecord does it."""
    crc = 0xFFFFFFFF
    for byte in piece:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
