"""How long the garbage collector held the training up, added up for the node agent to read."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping

from holter.ring import Ring, Word


class GarbageWatch:
    """A callback of `gc`: two clock readings a collection, against the collection's own hundreds of microseconds."""

    def __init__(self) -> None:
        self._began = 0
        self.nanoseconds = 0

    def start(self) -> GarbageWatch:
        gc.callbacks.append(self._called)
        return self

    def stop(self) -> None:
        if self._called in gc.callbacks:
            gc.callbacks.remove(self._called)

    def _called(self, phase: str, _about: Mapping[str, object]) -> None:
        if phase == "start":
            self._began = time.monotonic_ns()
        elif self._began:
            self.nanoseconds += time.monotonic_ns() - self._began
            self._began = 0

    def tell(self, ring: Ring) -> None:
        ring.words[Word.GARBAGE] = self.nanoseconds
