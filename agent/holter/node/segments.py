"""The spool's folder: files of records, named by the number of their first, and how far the collector has acknowledged."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from holter.node.records import Record, pack, scan

_FREE_BYTES = 1024 * 1024 * 1024
"""Left free on the disk, or a twentieth of it where that is less: on a small disk a gigabyte would mean no spool at all."""


@dataclass(frozen=True)
class Segments:
    """Raises `OSError` where it writes; what cannot be read is as good as absent."""

    folder: Path

    def path(self, first: int) -> Path:
        return self.folder / f"{first:020d}.seg"

    def found(self) -> list[tuple[int, int]]:
        """`(number of the first record, bytes)` of each segment, oldest first."""
        return sorted((int(path.stem), path.stat().st_size) for path in self.folder.glob("*.seg") if path.stem.isdecimal())

    def create(self, first: int) -> int:
        """A new segment, open for appending; its name is durable."""
        self._check_room()
        descriptor = os.open(self.path(first), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._sync_names()
        return descriptor

    def _check_room(self) -> None:
        """The last of a disk belongs to the training's checkpoints."""
        found = os.statvfs(self.folder)
        if found.f_bavail * found.f_frsize < min(_FREE_BYTES, found.f_blocks * found.f_frsize // 20):
            raise OSError(errno.ENOSPC, "the disk is nearly full")

    def _sync_names(self) -> None:
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self, first: int) -> list[Record]:
        try:
            return list(scan(self.path(first).read_bytes()))
        except OSError:
            return []

    def replace(self, first: int, records: Sequence[Record]) -> None:
        """Durable before it takes the other's place: after a power loss one of the two is there, whole."""
        draft = self.folder / f".{first}.draft"
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(b"".join(pack(record) for record in records))
                file.flush()
                os.fsync(descriptor)
            draft.replace(self.path(first))
        except OSError:
            draft.unlink(missing_ok=True)
            raise

    def remove(self, first: int) -> None:
        with contextlib.suppress(OSError):
            self.path(first).unlink()

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
        for path in self.folder.glob("*"):
            with contextlib.suppress(OSError):
                path.unlink()
        with contextlib.suppress(OSError):
            self.folder.rmdir()
