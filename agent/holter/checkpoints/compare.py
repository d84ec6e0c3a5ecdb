"""Whether the copy of a checkpoint is the same: the same files, the same sizes, the same bytes."""

from __future__ import annotations

from collections.abc import Iterator

from holter.checkpoints.whole import Contents

PIECE = 64 << 10
BLOCK = 4 << 20


def difference(here: Contents, there: Contents) -> str:
    """What the copy lacks by names and sizes; empty where nothing. A copy may hold more."""
    missing = sorted(set(here.files) - set(there.files))
    if missing:
        return f"{len(missing)} of {len(here.files)} files are not there, first {missing[0] or here.name}"
    for name, file in here.files.items():
        if there.files[name].bytes != file.bytes:
            return f"{name or here.name} has {there.files[name].bytes:,} bytes of {file.bytes:,}"
    return ""


def compared(here: Contents, there: Contents, check: str) -> Iterator[str]:
    """Reads both, a piece at a time: yields "" after each, so that whoever asks may stop for a while, and at last what differs, if anything does.

    `pieces` reads the beginning, the middle and the end of each file, which shows a copy that was cut, mixed up or filled with zeros; `all`
    reads everything. Raises as the shelves.
    """
    for name, file in here.files.items():
        for start, length in _pieces(file.bytes, check):
            mine, theirs = here.read(name, start, length), there.read(name, start, length)
            if mine != theirs:
                yield f"{name or here.name} differs between bytes {start:,} and {start + length:,}"
                return
            yield ""


def _pieces(size: int, check: str) -> list[tuple[int, int]]:
    if check == "sizes" or not size:
        return []
    if check == "all" or size <= 3 * PIECE:
        return [(start, min(BLOCK, size - start)) for start in range(0, size, BLOCK)]
    return [(start, PIECE) for start in (0, (size - PIECE) // 2, size - PIECE)]
