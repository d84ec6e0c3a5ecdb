"""Runs each sampler in a thread of its own, so that one that hangs costs its own numbers and nothing else."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from holter.samplers import Place, Sample, Sampler, SamplerAbsent

_log = logging.getLogger("holter.node")
HANGS_AFTER_SECONDS = 30.0
TRY_AGAIN_SECONDS = 600.0


class Fuse:
    """A byte on disk that is set while a vendor library is called: when it is still set at the next start, the library killed the agent."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.was_blown = os.pread(self._descriptor, 1, 0) == b"1"
        self.set(is_burning=False)

    def set(self, *, is_burning: bool) -> None:
        os.pwrite(self._descriptor, b"1" if is_burning else b"0", 0)


class Watched:
    """One sampler: its thread, when it was last asked, and whether it is off and why."""

    def __init__(self, kind: type[Sampler], fuse: Fuse | None, results: queue.SimpleQueue[tuple[str, Sample | str]]) -> None:
        self.kind = kind
        self.name = kind.name
        self.every_seconds = kind.every_seconds
        self.next_at = 0.0
        self.asked_at: float | None = None
        self._fuse, self._results = fuse, results
        self._questions: queue.SimpleQueue[Sequence[Place]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def ask(self, places: Sequence[Place], now: float) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._questions = queue.SimpleQueue()
            self._thread = threading.Thread(target=self._serve, args=(self._questions,), name=f"holter-{self.name}", daemon=True)
            self._thread.start()
        self.asked_at = now
        self._questions.put(places)

    def _serve(self, questions: queue.SimpleQueue[Sequence[Place]]) -> None:
        sampler: Sampler | None = None
        while True:
            places = questions.get()
            try:
                self._burn(is_burning=True)
                sampler = sampler or self.kind()
                self._results.put((self.name, sampler.sample(places)))
            except SamplerAbsent as error:
                self._results.put((self.name, f"absent: {error}"))
            except Exception as error:  # noqa: BLE001  a vendor's library raises what it likes; the sampler is switched off and told
                self._results.put((self.name, f"{type(error).__name__}: {error}"))
                sampler = None
            finally:
                self._burn(is_burning=False)

    def _burn(self, *, is_burning: bool) -> None:
        if self._fuse is not None:
            self._fuse.set(is_burning=is_burning)


class Sampling:
    """Asks the samplers in turn. `tell(sample)` gets what they found, `off(sampler, reason)` is called once when one fails."""

    def __init__(
        self, kinds: Sequence[type[Sampler]], folder: Path, tell: Callable[[Sample], None], off: Callable[[str, str], None]
    ) -> None:
        self._results: queue.SimpleQueue[tuple[str, Sample | str]] = queue.SimpleQueue()
        self._tell, self._off = tell, off
        self._off_told: set[str] = set()
        fuses = {kind.name: _fuse(folder, kind.name) for kind in kinds}
        self._samplers = {kind.name: Watched(kind, fuses[kind.name], self._results) for kind in kinds}
        self._blown = [name for name, fuse in fuses.items() if fuse is not None and fuse.was_blown]

    def look(self, places: Sequence[Place]) -> None:
        """Ask who is due, take what came. Never waits."""
        now = time.monotonic()
        for name in self._blown:
            self._switch_off(self._samplers[name], "the agent died inside it", now)
        self._blown = []
        for watched in self._samplers.values():
            if watched.asked_at is not None and now - watched.asked_at > HANGS_AFTER_SECONDS:
                self._switch_off(watched, f"no answer in {HANGS_AFTER_SECONDS:.0f} s", now)
                # The hanging thread is left to itself; when it is tried again, it is the same thread that must come back first.
            elif watched.asked_at is None and now >= watched.next_at and places:
                watched.next_at = now + watched.every_seconds
                watched.ask(places, now)
        self._take(now)

    def _take(self, now: float) -> None:
        while True:
            try:
                name, found = self._results.get_nowait()
            except queue.Empty:
                return
            watched = self._samplers[name]
            watched.asked_at = None
            if isinstance(found, Sample):
                self._off_told.discard(name)
                self._tell(found)
            elif found.startswith("absent: "):
                watched.next_at = now + TRY_AGAIN_SECONDS
            else:
                self._switch_off(watched, found, now)

    def _switch_off(self, watched: Watched, reason: str, now: float) -> None:
        watched.next_at = now + TRY_AGAIN_SECONDS
        watched.asked_at = float("inf") if reason.startswith("no answer") else None
        if watched.name not in self._off_told:
            self._off_told.add(watched.name)
            _log.warning("sampler %s is off: %s", watched.name, reason)
            self._off(watched.name, reason)


def _fuse(folder: Path, name: str) -> Fuse | None:
    try:
        return Fuse(folder / f"{name}.fuse")
    except OSError:
        return None
