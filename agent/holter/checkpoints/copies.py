"""The copies of a run's checkpoints at a second place: which have arrived, which are the same, which are all that is left."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from holter.checkpoints.compare import compared, difference
from holter.checkpoints.folder import Look, contents_of, shape_of
from holter.checkpoints.names import newest
from holter.checkpoints.shelf import Shelf
from holter.checkpoints.whole import problem


@dataclass(slots=True)
class Copy:
    """`state`: `absent`, `comparing`, `verified` (held against the original), `whole` (the original was never seen), or what is wrong."""

    state: str = "absent"
    shape: tuple[int, int, str] | None = None
    reading: Iterator[str] | None = None


@dataclass
class Copies:
    """Contents are read for some seconds a look, so a large checkpoint is compared over many looks."""

    shelf: Shelf
    check: str
    known: dict[str, Copy] = field(init=False, default_factory=dict)
    moved: dict[str, int] = field(init=False, default_factory=dict)
    """Bytes of those that are whole at this place and not at the other."""

    def look(self, looks: Mapping[str, Look], original: Shelf, until: float) -> None:
        """Judges the copies of what is whole at `original`, newest first. Raises as the shelves."""
        there = newest(self.shelf.names())
        for name in [name for name in self.known if name not in there]:
            del self.known[name]
        for name in [name for name in reversed(list(looks)) if looks[name].state == "complete" and name in there]:
            copy = self.known.setdefault(name, Copy())
            if time.monotonic() < until and (copy.state != "verified" or name == there[-1]):
                self._compare(name, copy, original, until)
        only = [name for name in there if name not in looks and (name in self.known or time.monotonic() < until)]
        self.moved = {name: size for name in only if (size := self._whole_bytes(name)) is not None}

    def state(self, name: str) -> str:
        return self.known[name].state if name in self.known else "absent"

    def _compare(self, name: str, copy: Copy, original: Shelf, until: float) -> None:
        there = contents_of(self.shelf, name)
        shape = shape_of(there)
        if copy.shape != shape:
            here = contents_of(original, name)
            wrong = difference(here, there)
            copy.shape, copy.reading = shape, None if wrong else compared(here, there, self.check)
            copy.state = wrong or "comparing"
        while copy.reading is not None and time.monotonic() < until:
            said = next(copy.reading, None)
            if said != "":
                copy.state, copy.reading = ("verified" if said is None else said), None

    def _whole_bytes(self, name: str) -> int | None:
        copy = self.known.get(name)
        if copy is None or copy.shape is None:
            contents = contents_of(self.shelf, name)
            copy = self.known[name] = Copy(problem(contents) or "whole", shape_of(contents))
        return copy.shape[1] if copy.shape and copy.state in ("verified", "whole") else None
