"""The checkpoints of one folder as they look from one look to the next: being written, whole, or not whole."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from holter.checkpoints.names import newest, step_of
from holter.checkpoints.shelf import Shelf
from holter.checkpoints.whole import MARKERS, Contents, problem

TRACKERS = ("latest_checkpointed_iteration.txt", "latest", "latest.txt")
"""Megatron, DeepSpeed and nanotron write into these, when all is written, which one a resume takes."""


@dataclass(slots=True)
class Look:
    """How one checkpoint looked, and since when it has looked so."""

    shape: tuple[int, int, str]
    """Files, bytes, newest stamp."""
    since: float
    state: str = "writing"
    """`writing`, `complete`, or what is wrong with it."""
    written: float = 0.0
    markers: frozenset[str] = frozenset()


@dataclass
class Folder:
    """What lies still is looked at in turn: large checkpoints have more files than a shared file system likes to be asked about every half minute."""

    shelf: Shelf
    complete: str = ""
    patience_seconds: float = 600.0
    looks: dict[str, Look] = field(init=False, default_factory=dict)
    tracked: str = field(init=False, default="")
    """What the tracker said at the last look."""
    turn: int = field(init=False, default=0)

    def look(self, now: float, until: float) -> list[str]:
        """Looks at the newest, newest first, until `until`; answers with all entries. Raises as the shelf."""
        entries = self.shelf.names()
        names = newest(entries)
        due = self._due(names)
        there: dict[str, Look] = {}
        for name in reversed(names):
            known = self.looks.get(name)
            if name not in due or time.monotonic() > until:
                there[name] = known or Look((-1, 0, ""), now)
                continue
            try:
                there[name] = self._judged(name, known, now, entries)
            except FileNotFoundError:
                # Deleted under the look; the next one says so.
                continue
        self.looks = {name: there[name] for name in names if name in there}
        return entries

    def _due(self, names: Sequence[str]) -> set[str]:
        """The newest two, those that are not whole yet, and one of the others in turn."""
        still = [name for name in names[:-2] if name in self.looks and self.looks[name].state == "complete"]
        self.turn += 1
        return set(names).difference(still) | ({still[self.turn % len(still)]} if still else set())

    def _judged(self, name: str, before: Look | None, now: float, entries: Sequence[str]) -> Look:
        contents = contents_of(self.shelf, name)
        shape = shape_of(contents)
        if before is None or before.shape != shape:
            written = max((file.written for file in contents.files.values()), default=0.0)
            return Look(shape, now, written=written, markers=frozenset(contents.files).intersection(MARKERS))
        if before.state == "writing":
            wrong = problem(contents, self._demanded(name, entries))
            if not wrong:
                before.state = "complete"
            elif now - before.since >= self.patience_seconds:
                before.state = wrong
        return before

    def _demanded(self, name: str, entries: Sequence[str]) -> list[str]:
        """The declared file, or the marker that most of the other checkpoints have."""
        if self.complete:
            named = self.complete.replace("{name}", name)
            return [] if named != self.complete and named in entries else [named]
        others = [look.markers for other, look in self.looks.items() if other != name]
        counts = Counter(marker for markers in others for marker in markers)
        return [marker for marker, count in counts.items() if count >= 2 and 2 * count > len(others)]

    def stray_tracker(self, entries: Sequence[str], elsewhere: Sequence[str]) -> tuple[str, int] | None:
        """`(file, step)` of a tracker that names, at two looks, a checkpoint that is neither here nor `elsewhere`: a resume would fail."""
        for tracker in sorted(set(TRACKERS).intersection(entries)):
            text = self.shelf.read(tracker, 0, 200).decode(errors="replace").strip()
            before, self.tracked = self.tracked, text
            step = step_of(text)
            if text == before and step >= 0 and all(step_of(name) != step for name in [*entries, *elsewhere]):
                return tracker, step
        return None


def contents_of(shelf: Shelf, name: str) -> Contents:
    """Raises as the shelf."""
    return Contents(name, shelf.files(name), lambda path, start, length: shelf.read(f"{name}/{path}" if path else name, start, length))


def shape_of(contents: Contents) -> tuple[int, int, str]:
    return len(contents.files), contents.bytes, max((file.stamp for file in contents.files.values()), default="")
