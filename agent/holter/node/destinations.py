"""Where the frames of each run go: one spool a run, known to the shipper, also of runs whose agent ended before all was shipped."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

from holter.frame import encode
from holter.node import lives
from holter.node.records import Class
from holter.node.shipper import Destination, Shipper
from holter.node.spool import Spool

_log = logging.getLogger("holter.node")
_LABEL = "about.json"
MAX_RUNS_KEPT = 64


class Destinations:
    """All that lie below `root`, a folder each."""

    def __init__(self, root: Path, shipper: Shipper) -> None:
        self._root, self._shipper = root, shipper
        self._open: list[Destination] = []

    @property
    def are_shipped(self) -> bool:
        return all(found.spool.is_empty for found in self._open)

    def of(self, about: dict[str, Any]) -> Destination:
        """The run's, made if need be."""
        folder = self._root / hashlib.sha256(f"{about['project']}\n{about['name']}".encode()).hexdigest()[:16]
        known = next((found for found in self._open if found.spool.folder == folder), None)
        return known or self._add(folder, about)

    def _add(self, folder: Path, about: dict[str, Any]) -> Destination:
        destination = Destination(about, Spool(folder=folder))
        try:
            lives.label(folder / _LABEL, json.dumps(about, default=str))
        except OSError as error:
            _log.warning("the spool's label could not be written (%s)", error)
        self._open.append(destination)
        self._shipper.add(destination)
        return destination

    def adopt_leftovers(self) -> None:
        """Frames that an earlier agent of this node could not ship."""
        for label in sorted(self._root.glob(f"*/{_LABEL}"))[:MAX_RUNS_KEPT]:
            try:
                about = json.loads(label.read_text())
            except (OSError, ValueError) as error:
                _log.warning("left alone: %s (%s)", label, error)
                continue
            found = self._add(label.parent, about)
            told = lives.cut_short(label.parent)
            if told is not None:
                found.spool.append(Class.EVENTS, encode(told), events=1)
                if found.spool.sync():
                    lives.end(label.parent)

    def forget_shipped(self, used: Collection[Destination]) -> None:
        """Those of which nothing waits and that nobody uses."""
        for destination in [found for found in self._open if found not in used and found.spool.is_empty]:
            self._open.remove(destination)
            self._shipper.remove(destination)
            destination.spool.remove()

    def close(self) -> None:
        """What is left waits for the next agent of the node."""
        self.forget_shipped(())
        for destination in self._open:
            destination.spool.close()
            lives.end(destination.spool.folder)
