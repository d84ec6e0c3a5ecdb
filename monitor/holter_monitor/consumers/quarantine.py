"""Where records lie that the control store refused: said in the log, counted, and the newest kept as files for whoever looks into it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from holter_monitor.consumers.sieve import Refused
from holter_monitor.meters import Meters
from holter_monitor.store.ports import Entry

logger = logging.getLogger(__name__)
KEPT = 32
WORDS = 500


class Quarantine:
    def __init__(self, folder: Path, meters: Meters) -> None:
        self._folder, self._meters = folder, meters

    def take(self, refused: Sequence[Refused]) -> None:
        for each in refused:
            self._take(each)

    def _take(self, refused: Refused) -> None:
        name, content = _file(refused)
        reason = f"{type(refused.error).__name__}: {getattr(refused.error, 'orig', None) or refused.error}"[:WORDS]
        logger.error(
            "the control store refuses a %s of run %s: it is left out, and kept as %s (%s)", refused.kind, _run(refused.item), name, reason
        )
        self._meters.refused_records.labels(refused.kind).inc()
        try:
            self._keep(name, content)
        except OSError as error:
            logger.warning("%s cannot be kept: %s", name, error)

    def _keep(self, name: str, content: bytes) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        (self._folder / name).write_bytes(content)
        oldest_first = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        for path in oldest_first[:-KEPT]:
            path.unlink(missing_ok=True)


def _file(refused: Refused) -> tuple[str, bytes]:
    """Its name, the same each time, and what is in it: a frame's own bytes, all else as JSON."""
    if isinstance(refused.item, Entry):
        return f"frame-{refused.item.offset}.frame", refused.item.body
    row = refused.item if isinstance(refused.item, dict) else asdict(refused.item)
    content = json.dumps(row, default=str).encode()
    return f"{refused.kind}-{hashlib.sha256(content).hexdigest()[:16]}.json", content


def _run(item: Any) -> str:
    if isinstance(item, Entry):
        return item.frame.run
    return str(item["run"] if isinstance(item, dict) else item.run)
