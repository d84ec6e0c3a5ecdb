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
    """All that lie below `root`, a folder each; what the disk does not take lies below `overflow`, in a folder of the same name."""

    def __init__(self, root: Path, overflow: Path, shipper: Shipper) -> None:
        self._root, self._overflow, self._shipper = root, overflow, shipper
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
        overflow = self._overflow / folder.name
        destination = Destination(about, Spool(folder=folder, overflow=overflow))
        self._label(about, folder, overflow)
        self._open.append(destination)
        self._shipper.add(destination)
        return destination

    def _label(self, about: dict[str, Any], *folders: Path) -> None:
        """In the first of `folders` that takes it."""
        text = json.dumps(about, default=str)
        for folder in folders:
            try:
                lives.label(folder / _LABEL, text)
            except OSError as error:
                _log.warning("the spool's label could not be written (%s)", error)
            else:
                return

    def adopt_leftovers(self) -> None:
        """Frames that an earlier agent of this node could not ship."""
        labels = {label.parent.name: label for root in (self._overflow, self._root) for label in root.glob(f"*/{_LABEL}")}
        for name, label in sorted(labels.items())[:MAX_RUNS_KEPT]:
            try:
                about = json.loads(label.read_text())
            except (OSError, ValueError) as error:
                _log.warning("left alone: %s (%s)", label, error)
                continue
            found = self._add(folder := self._root / name, about)
            told = lives.cut_short(folder)
            if told is not None:
                found.spool.append(Class.EVENTS, encode(told), events=1)
                if found.spool.sync():
                    lives.end(folder)

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
            if destination.spool.sync():
                lives.end(destination.spool.folder)
            destination.spool.close()
