"""The place that a run keeps its checkpoints in (`HOLTER_CHECKPOINTS`), and that of their copies: which there are and whether they are whole,
told whenever that changes. The rules are in `holter.checkpoints`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from holter.checkpoints.copies import Copies
from holter.checkpoints.folder import Folder
from holter.checkpoints.names import KEPT, step_of
from holter.checkpoints.plan import Plan
from holter.checkpoints.shelf import open_shelf, without_secrets
from holter.errors import HolterError
from holter.samplers import Place, Sample

LOOK_SECONDS = 8.0
"""After so long a look is over, at the folder and again at the copies; the rest waits for the next one."""


@dataclass
class Watch:
    """One plan, what it looked like, and what was told of it."""

    plan: Plan
    folder: Folder
    copies: Copies | None = None
    told: object = None

    def look(self, now: float) -> dict[str, Any]:
        """A place that does not answer is told as that (`problem`), and never as one that is empty."""
        about: dict[str, Any] = {"folder": self.folder.shelf.address, "every": self.plan.every or None, "keep": self.plan.keep or None}
        if self.plan.copy:
            about["copy"] = without_secrets(self.plan.copy)
        try:
            entries = self.folder.look(now, time.monotonic() + LOOK_SECONDS)
            about["copy_problem"] = self._look_at_copies()
            about["items"] = self._items() + self._stray(entries)
            about["free"] = self.folder.shelf.free()
        except (OSError, HolterError) as error:
            about["problem"] = _shown(error)
        return about

    def _look_at_copies(self) -> str:
        if not self.plan.copy:
            return ""
        try:
            self.copies = self.copies or Copies(open_shelf(self.plan.copy), self.plan.check)
            self.copies.look(self.folder.looks, self.folder.shelf, time.monotonic() + LOOK_SECONDS)
        except (OSError, HolterError) as error:
            return _shown(error)
        return ""

    def _items(self) -> list[list[Any]]:
        """`[name, step, bytes, state, written, copy]` of the newest, oldest first."""
        state = self.copies.state if self.copies else lambda name: "absent" if self.plan.copy else ""
        here = [
            [name, step_of(name), look.shape[1], look.state, round(look.written, 1), state(name)]
            for name, look in self.folder.looks.items()
        ]
        moved = [
            [name, step_of(name), size, "moved", 0.0, state(name)] for name, size in (self.copies.moved if self.copies else {}).items()
        ]
        return sorted(here + moved, key=lambda item: (item[1], item[0]))[-KEPT:]

    def _stray(self, entries: Sequence[str]) -> list[list[Any]]:
        stray = self.folder.stray_tracker(entries, list(self.copies.moved) if self.copies else [])
        return [[stray[0], stray[1], 0, f"it names step {stray[1]}, which is not there: a resume would fail", 0.0, ""]] if stray else []


@dataclass(kw_only=True)
class Checkpoints:
    """Only the run's first rank has a plan, since the folder is usually shared. Headers, indices and ends are read to see whether a checkpoint is
    whole, and contents, in pieces, to compare its copy."""

    name: ClassVar[str] = "checkpoints"
    every_seconds: ClassVar[float] = 30.0
    patience_seconds: float = 600.0
    """A checkpoint that is not whole and has not changed for this long is not being written any more."""
    clock: Callable[[], float] = time.monotonic
    watches: dict[Plan, Watch] = field(init=False, default_factory=dict)

    def sample(self, places: Sequence[Place]) -> Sample:
        plans = {place.checkpoints: place.pid for place in places if place.checkpoints is not None}
        self.watches = {plan: watch for plan, watch in self.watches.items() if plan in plans}
        found = Sample()
        for plan, pid in plans.items():
            about = self._changed(plan)
            if about is not None:
                found.events.append(("checkpoint_files", pid, about))
        return found

    def _changed(self, plan: Plan) -> dict[str, Any] | None:
        """What there is to tell; None where nothing has changed since it was told. The first look is always told: an agent that starts anew may find
        empty what its predecessor found full."""
        if plan not in self.watches:
            self.watches[plan] = Watch(plan, Folder(open_shelf(plan.folder), plan.complete, self.patience_seconds))
        watch = self.watches[plan]
        about = watch.look(self.clock())
        changing = _news(about)
        if changing == watch.told:
            return None
        watch.told = changing
        return about


def _news(about: dict[str, Any]) -> dict[str, Any]:
    """What of it is worth telling again. The words of a store's refusal may carry a request's number: that it refuses is the news; and one that is
    being written grows with every look."""
    said: dict[str, Any] = {key: bool(value) if key.endswith("problem") else value for key, value in about.items() if key != "free"}
    if "items" in said:
        said["items"] = [[*item[:2], *([0, "writing", 0.0] if item[3] == "writing" else item[2:5]), *item[5:]] for item in said["items"]]
    return said


def _shown(error: Exception) -> str:
    return (str(error) if isinstance(error, HolterError) else f"{type(error).__name__}: {error}")[:300]
