"""Frames that the collector refused for good, kept for a person to look at; they are never sent again."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

_log = logging.getLogger("holter.node")
MAX_QUARANTINED = 32


@dataclass(frozen=True)
class Quarantine:
    """A folder with the newest refused frames."""

    folder: Path

    def keep(self, data: bytes, reason: str) -> None:
        """Never raises: on a disk that is full the frame is counted all the same, only not kept."""
        _log.error("the collector refused a frame (%s); it is kept in %s", reason, self.folder)
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            kept = sorted(self.folder.glob("*.frame"), key=lambda path: path.stat().st_mtime)
            for old in kept[: max(0, len(kept) - MAX_QUARANTINED + 1)]:
                old.unlink()
            (self.folder / f"{time.time_ns()}-{os.getpid()}.frame").write_bytes(data)
