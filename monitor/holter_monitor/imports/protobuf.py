"""The protobuf wire format, as much of it as logs need: fields by number, without the schema's packages."""

from __future__ import annotations

import struct
from collections.abc import Iterator

Value = int | bytes
"""A varint or a fixed-width field as an int, a length-delimited one as bytes."""


class WireError(ValueError):
    """Bytes that are no protobuf message."""


def fields(message: bytes) -> Iterator[tuple[int, Value]]:
    """`(field number, value)` in the order of the message; fixed-width values as unsigned integers. Raises `WireError`."""
    place, end = 0, len(message)
    while place < end:
        key, place = _varint(message, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if kind == 2:
            width, place = _varint(message, place)
        elif kind in (1, 5):
            width = 8 if kind == 1 else 4
        else:
            raise WireError(f"wire type {kind}")
        piece = message[place : place + width]
        if len(piece) != width:
            raise WireError("a field is cut off")
        place += width
        yield key >> 3, piece if kind == 2 else int.from_bytes(piece, "little")


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(message) and shift < 70:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise WireError("a varint is cut off")


def signed(value: Value) -> int:
    """An int64 field: varints carry it in two's complement."""
    if isinstance(value, bytes):
        raise WireError("bytes where a number is expected")
    return value - (1 << 64) if value >= 1 << 63 else value


def real(value: Value, width: int) -> float:
    """A fixed-width field as the float (4) or double (8) that it is."""
    if isinstance(value, bytes):
        raise WireError("bytes where a number is expected")
    unpacked: float = struct.unpack("<f" if width == 4 else "<d", value.to_bytes(width, "little"))[0]
    return unpacked


def nested(value: Value) -> bytes:
    """A length-delimited field."""
    if not isinstance(value, bytes):
        raise WireError("a number where a message is expected")
    return value
