"""The spool's folder: files of records, named by the number of their first, and how far the collector has acknowledged."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holter.node.records import Record, pack, scan

_FREE_BYTES = 1024 * 1024 * 1024
"""Left free on the disk, or a twentieth of it where that is less: on a small disk a gigabyte would mean no spool at all."""


@dataclass
class Segments:
    """Raises `OSError` where it writes; what cannot be read is as good as absent.

    Where the disk takes nothing, a segment lies in `overflow`, in shared memory: a kill of the agent leaves it there.
    """

    folder: Path
    overflow: Path | None = None
    _over: set[int] = field(default_factory=set)

    def is_over(self, first: int) -> bool:
        """Whether this segment lies in the overflow."""
        return first in self._over

    def _path(self, first: int) -> Path:
        return self._home(first) / f"{first:020d}.seg"

    def _home(self, first: int) -> Path:
        return self.overflow if self.overflow is not None and self.is_over(first) else self.folder

    def found(self) -> list[tuple[int, int]]:
        """`(number of the first record, bytes)` of each segment, oldest first."""
        if self.overflow is not None:
            self._over = {int(path.stem) for path in _segments_in(self.overflow)}
        folders = [self.folder, *([self.overflow] if self.overflow is not None else [])]
        return sorted((int(path.stem), path.stat().st_size) for folder in folders for path in _segments_in(folder))

    def create(self, first: int, *, over: bool = False) -> int:
        """A new segment, open for appending; its name is durable. `over`: in the overflow, which there must be."""
        if over:
            self._over.add(first)
        else:
            self._over.discard(first)
        home = self._home(first)
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        check_room(home)
        descriptor = os.open(self._path(first), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _sync_names(home)
        except OSError:
            os.close(descriptor)
            self.remove(first)
            raise
        return descriptor

    def reopen(self, first: int) -> int:
        return os.open(self._path(first), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def read(self, first: int) -> list[Record]:
        try:
            return list(scan(self._path(first).read_bytes()))
        except OSError:
            return []

    def replace(self, first: int, records: Sequence[Record]) -> None:
        """Durable before it takes the other's place: after a power loss one of the two is there, whole."""
        draft = self._home(first) / f".{first}.draft"
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(b"".join(pack(record) for record in records))
                file.flush()
                os.fsync(descriptor)
            draft.replace(self._path(first))
        except OSError:
            draft.unlink(missing_ok=True)
            raise

    def remove(self, first: int) -> None:
        with contextlib.suppress(OSError):
            self._path(first).unlink()
        self._over.discard(first)

    def acked(self) -> int:
        """The newest number that the collector has acknowledged; -1 where nothing says so."""
        try:
            return int((self.folder / "acked").read_text())
        except (OSError, ValueError):
            return -1

    def set_acked(self, number: int) -> None:
        # Not synced, and torn by a kill: a few frames go out again, and the collector knows them by their (node, boot, seq).
        with contextlib.suppress(OSError):
            (self.folder / "acked").write_text(f"{number:020d}")

    def clear(self) -> None:
        """Take all of it away."""
        for folder in (self.folder, self.overflow):
            if folder is not None:
                for path in folder.glob("*"):
                    with contextlib.suppress(OSError):
                        path.unlink()
                with contextlib.suppress(OSError):
                    folder.rmdir()


def check_room(folder: Path) -> None:
    """The last of a disk belongs to the training's checkpoints, and the last of shared memory to its data loaders. Raises `OSError`."""
    found = os.statvfs(folder)
    if found.f_bavail * found.f_frsize < least_free(found.f_blocks * found.f_frsize):
        raise OSError(errno.ENOSPC, "the disk is nearly full")


def least_free(total: int) -> int:
    """What stays free on a disk of `total` bytes."""
    return min(_FREE_BYTES, total // 20)


def _segments_in(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.seg") if path.stem.isdecimal()]


def _sync_names(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
