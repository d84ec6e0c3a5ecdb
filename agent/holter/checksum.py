"""Checksums of bytes that can be summed in any order, on any device, and that say which lane changed: S1, S2, S3 of rows of 32-bit lanes.

With A[r] and B[c] the sums of row r and column c, mod
2^32 and then signed::

    S1 = sum A[r]      S2 = sum r * ROW * A[r] + sum c * B[c]      S3 = sum f(r) * A[r] + sum g(c) * B[c]      (mod 2^64)

with f and g fixed pseudo-random words. Integer sums are exact in any order. Summing in 32 bits runs at the speed of memory, where sums of
index-weighted lanes run at a twentieth of it; a single changed lane is still found, with its bit (`locate`).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.int64]
ROW: Final = 2048
"""Lanes of a row."""


def mixed(first: int, count: int) -> Words:
    """`count` fixed pseudo-random words from place `first` on (splitmix64)."""
    z = (np.arange(first, first + count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    words: Words = (z ^ (z >> np.uint64(31))).view(np.int64)
    return words


_COLUMN_WORDS: Final = 1 << 40


def row_weights(count: int) -> Words:
    """(3, count): what row sums are multiplied by for S1, S2, S3."""
    places = np.arange(count, dtype=np.int64)
    return np.stack([np.ones(count, np.int64), places * ROW, mixed(0, count)])


def column_weights() -> Words:
    """(3, ROW): what column sums are multiplied by."""
    places = np.arange(ROW, dtype=np.int64)
    return np.stack([np.zeros(ROW, np.int64), places, mixed(_COLUMN_WORDS, ROW)])


def checksum(lanes: NDArray[np.int32]) -> Words:
    """S1, S2, S3 of lanes that fill whole rows: the definition, for tests and for the collector; ranks compute it with torch."""
    rows = lanes.reshape(-1, ROW)
    with np.errstate(over="ignore"):
        a = rows.sum(1, dtype=np.int32).astype(np.int64)
        b = rows.sum(0, dtype=np.int32).astype(np.int64)
        total: Words = (row_weights(len(a)) * a).sum(1) + (column_weights() * b).sum(1)
    return total


def locate(change: Words, rows: int) -> tuple[int, int, int | None] | None:
    """`(row, column, bit)` where the change of (S1, S2, S3) is that of a single lane; None where several lanes differ.

    `bit` is None where that lane changed in several bits. The chance that several changed lanes pass for one is about 2^-53: S3 must agree.
    """
    d1, d2, d3 = (int(word) for word in change)
    if d1 == 0 or abs(d1) >= 1 << 32:
        return None
    columns = np.arange(ROW, dtype=np.int64)
    # A 32-bit sum that wrapped changed by 2^32 more or less, and the row's sum may have wrapped where the column's did not.
    for d_column in (d1, d1 - (1 << 32) if d1 > 0 else d1 + (1 << 32)):
        with np.errstate(over="ignore"):
            rest = np.int64(d2) - columns * np.int64(d_column)
            places = rest // np.int64(d1 * ROW)
            fits = (places >= 0) & (places < rows) & (places * np.int64(d1 * ROW) == rest)
        for column in columns[fits].tolist():
            row = int(places[column])
            expected = int(mixed(row, 1)[0]) * d1 + int(mixed(_COLUMN_WORDS + column, 1)[0]) * d_column
            if _signed(expected) == d3:
                return row, column, _bit(d1)
    return None


def _bit(change: int) -> int | None:
    """The bit whose flip changes a 32-bit word by this much, mod 2^32."""
    for magnitude in (abs(change), (1 << 32) - abs(change)):
        if magnitude & (magnitude - 1) == 0:
            return magnitude.bit_length() - 1
    return None


def _signed(value: int) -> int:
    return ((value + (1 << 63)) % (1 << 64)) - (1 << 63)
