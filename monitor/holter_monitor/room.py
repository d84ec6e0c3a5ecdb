"""Whether there is room left on the disk: asked for each frame, looked up once a second."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from holter_monitor.errors import DiskFull

FRESH_SECONDS = 1.0


class Room:
    """Ingest stops while there is still enough for the stores to commit what they hold, and for notices to be written."""

    def __init__(self, folder: Path, floor_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._floor, self._clock = folder, floor_bytes, clock
        self._free, self._until = 0, 0.0

    @property
    def free_bytes(self) -> int:
        now = self._clock()
        if now >= self._until:
            self._free, self._until = shutil.disk_usage(self._folder).free, now + FRESH_SECONDS
        return self._free

    def check(self) -> None:
        """Raises `DiskFull`."""
        free = self.free_bytes
        if free < self._floor:
            raise DiskFull(f"{free >> 20} MiB are free under {self._folder}, frames are taken from {self._floor >> 20} MiB on")
