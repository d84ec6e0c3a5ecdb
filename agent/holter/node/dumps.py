"""Seeks the flight recorder's files of ranks in trouble, in a thread of its own: they may lie on a file system that hangs with the job."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from typing import Any

from holter.node.flight import load

_log = logging.getLogger("holter.node")


class Dumps:
    """`ask` for a rank's file, `take` what was found since. Neither waits. Of one file the same writing is told once."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[tuple[int, str, float]] = queue.SimpleQueue()
        self._found: queue.SimpleQueue[tuple[int, dict[str, Any] | None]] = queue.SimpleQueue()
        self._out: set[int] = set()
        self._written: dict[str, float] = {}
        self._complained: set[str] = set()
        self._thread: threading.Thread | None = None

    @property
    def is_seeking(self) -> bool:
        return bool(self._out)

    def ask(self, rank: int, about: Any) -> None:
        """`about` is what the rank's ring says: `{"file": path, "since": unix seconds}`. One question a rank at a time."""
        if not isinstance(about, dict) or rank in self._out:
            return
        path, since = about.get("file"), about.get("since")
        if not isinstance(path, str) or not isinstance(since, int | float):
            return
        self._out.add(rank)
        self._asked.put((rank, path, float(since)))
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="holter-dumps", daemon=True)
            self._thread.start()

    def take(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """`(rank, summary)`."""
        while True:
            try:
                rank, found = self._found.get_nowait()
            except queue.Empty:
                return
            self._out.discard(rank)
            if found is not None:
                yield rank, found

    def _serve(self) -> None:
        while True:
            rank, path, since = self._asked.get()
            self._found.put((rank, self._look(path, since)))

    def _look(self, path: str, since: float) -> dict[str, Any] | None:
        try:
            found = load(path, max(since, self._written.get(path, 0.0)))
        except (ValueError, OSError) as error:
            if path not in self._complained:  # it may still be being written: the next look may find it whole
                self._complained.add(path)
                _log.warning("the flight recorder's dump %s cannot be read: %s", path, error)
            return None
        if found is not None:
            self._written[path] = found["written"]
        return found
