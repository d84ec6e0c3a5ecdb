"""Whether there is room left, on the disk and in memory: asked for each frame, looked up once a second."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from holter_monitor.errors import DiskFull, Unavailable

FRESH_SECONDS = 1.0
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """Of this process; 0 where the kernel does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
    except (OSError, ValueError, IndexError):
        return 0


class Room:
    """Ingest stops while there is still enough for the stores to commit what they hold, and for notices to be written."""

    def __init__(self, folder: Path, *, free_disk_bytes: int, memory_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._floor, self._clock = folder, free_disk_bytes, clock
        self._ceiling = resident_bytes() + memory_bytes
        self._free, self._resident, self._until = 0, 0, 0.0

    def look(self) -> None:
        now = self._clock()
        if now >= self._until:
            self._until = now + FRESH_SECONDS
            self._free, self._resident = shutil.disk_usage(self._folder).free, resident_bytes()

    def check(self, *, is_urgent: bool = True) -> None:
        """Raises `DiskFull`, or `Unavailable` while memory is short; what is urgent (a frame with events) is taken even then."""
        self.look()
        if self._free < self._floor:
            raise DiskFull(f"{self._free >> 20} MiB are free under {self._folder}, frames are taken from {self._floor >> 20} MiB on")
        if self._resident > self._ceiling and not is_urgent:
            raise Unavailable(f"memory is short: {self._resident >> 20} MiB in use, {self._ceiling >> 20} MiB allowed", retry_after=5)
