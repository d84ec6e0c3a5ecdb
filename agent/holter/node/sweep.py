"""What ranks left in the folder of rings that died while they made one, and rings that nobody could read."""

from __future__ import annotations

import logging
import time
from pathlib import Path

_log = logging.getLogger("holter.node")
STALE_FILE_SECONDS = 3600.0


def sweep(rings: Path) -> None:
    """Take away drafts and strange files older than an hour; what cannot be taken away is said and left."""
    for path in [*rings.glob(".*.draft"), *rings.glob("*.strange")]:
        try:
            if time.time() - path.stat().st_mtime > STALE_FILE_SECONDS:
                path.unlink()
        except OSError as error:
            _log.warning("left alone: %s (%s)", path, error)
