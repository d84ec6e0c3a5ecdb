"""A mount as a run will use it: a checkpoint written and read back with its checksum, random reads, free space.

Reads go around the page cache (O_DIRECT where the file system can, else the pages are dropped first): a cached read would praise the memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from holter_monitor.preflight.check import Check, shown

BLOCK = 1 << 20
PAGE = 4096
READS = 256
SLOW_READ_SECONDS = 0.05
"""A loader reads thousands of small pieces a second; where one in a hundred takes longer than this, it will be felt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """What the run needs of a mount. Zero: nothing is demanded, only measured."""

    probe_bytes: int = 256 << 20
    """How much is written and read back."""
    write_bytes: int = 0
    """What the run will leave there: checkpoints, logs."""
    bytes_per_second: float = 0.0
    """Read bandwidth below which the run would wait for its data."""


def look(folder: Path, demands: Demands) -> Iterator[Check]:
    what = f"storage {folder}"
    try:
        free = shutil.disk_usage(folder).free
        yield _space(what, free, demands.write_bytes)
        length = min(demands.probe_bytes, free // 4) // BLOCK * BLOCK
        if length == 0:
            yield Check(what=what, mark="fail", found=f"{shown(free)} free: no room for a probe", remedy="make room, or name another mount")
            return
        yield from _probe(what, folder, length, demands)
    except OSError as error:
        yield Check(
            what=what, mark="fail", found=f"{error.strerror or error} ({error.filename or folder})", remedy="mount it, or mend its rights"
        )


def _space(what: str, free: int, needed: int) -> Check:
    measured = {"free_bytes": float(free)}
    if needed and free < needed:
        found = f"{shown(free)} free, the run needs {shown(needed)}: full after {free / needed:.0%} of it"
        return Check(what=what, mark="fail", found=found, remedy="make room or keep fewer checkpoints", measured=measured)
    return Check(what=what, mark="ok", found=f"{shown(free)} free" + (f", {shown(needed)} needed" if needed else ""), measured=measured)


def _probe(what: str, folder: Path, length: int, demands: Demands) -> Iterator[Check]:
    handle, name = tempfile.mkstemp(prefix=".holter-preflight-", dir=folder)
    try:
        written, digest = _write(handle, length)
        read, same = _read_back(Path(name), length, digest)
        waits = _random_reads(Path(name), length)
    finally:
        os.close(handle)
        os.unlink(name)
    measured = {"write_bytes_per_second": length / written, "read_bytes_per_second": length / read}
    found = f"a checkpoint of {shown(length)}: written at {shown(length / written)}/s, read back at {shown(length / read)}/s"
    if not same:
        yield Check(
            what=what,
            mark="fail",
            found=f"{found}, and it is not what was written",
            remedy="take no checkpoint here: the storage corrupts data",
        )
    elif length / read < demands.bytes_per_second:
        remedy = "use faster storage, or more readers; the run would wait for its data"
        yield Check(
            what=what, mark="fail", found=f"{found}; {shown(demands.bytes_per_second)}/s are needed", remedy=remedy, measured=measured
        )
    else:
        yield Check(what=what, mark="ok", found=f"{found}, the same bytes", measured=measured)
    p50, p99 = (float(np.percentile(waits, q)) for q in (50, 99))
    yield Check(
        what=what,
        mark="note" if p99 > SLOW_READ_SECONDS else "ok",
        found=f"random reads of 4 KiB: p50 {p50 * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms",
        remedy="a loader of many small reads will stall here: fewer, larger reads, or a local copy" if p99 > SLOW_READ_SECONDS else "",
        measured={"read_p50_seconds": p50, "read_p99_seconds": p99},
    )


def _write(handle: int, length: int) -> tuple[float, bytes]:
    """Seconds until it is durable, and its checksum. Random bytes: some storage compresses, and flatters itself."""
    digest, seconds = hashlib.blake2b(), 0.0
    for _ in range(length // BLOCK):
        block = os.urandom(BLOCK)
        digest.update(block)
        started = time.perf_counter()
        os.write(handle, block)
        seconds += time.perf_counter() - started
    started = time.perf_counter()
    os.fsync(handle)
    return seconds + time.perf_counter() - started, digest.digest()


@contextlib.contextmanager
def _uncached(path: Path) -> Iterator[int]:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError:  # tmpfs, some network file systems
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        yield handle
    finally:
        os.close(handle)


def _read_back(path: Path, length: int, digest: bytes) -> tuple[float, bool]:
    found, seconds = hashlib.blake2b(), 0.0
    with _uncached(path) as handle, mmap.mmap(-1, BLOCK) as block:  # O_DIRECT wants memory that begins at a page
        for offset in range(0, length, BLOCK):
            started = time.perf_counter()
            os.preadv(handle, [block], offset)
            seconds += time.perf_counter() - started
            found.update(block)
    return seconds, found.digest() == digest


def _random_reads(path: Path, length: int) -> list[float]:
    waits: list[float] = []
    with _uncached(path) as handle, mmap.mmap(-1, PAGE) as page:
        for _ in range(READS):
            offset = random.randrange(length // PAGE) * PAGE  # noqa: S311  no secret
            started = time.perf_counter()
            os.preadv(handle, [page], offset)
            waits.append(time.perf_counter() - started)
    return waits
