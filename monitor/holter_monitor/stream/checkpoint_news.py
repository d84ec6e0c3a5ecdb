"""What a node agent says of the place of a run's checkpoints (`checkpoint_files`), read with the care that an event from outside needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from holter.frame import Event

MAX_ITEMS = 64


@dataclass(frozen=True, slots=True)
class Entry:
    """One checkpoint. `state`: `writing`, `complete`, `moved` (only at the copies' place), or what is wrong; `copy`: `` where none is wanted."""

    name: str
    step: int
    bytes: int
    state: str
    written: float
    copy: str

    @property
    def is_whole(self) -> bool:
        return self.state in ("complete", "moved")

    @property
    def has_copy(self) -> bool:
        return self.copy in ("verified", "whole")


@dataclass(frozen=True, slots=True)
class News:
    folder: str
    time: float
    """Unix seconds, the agent's clock."""
    copy: str = ""
    every: float = 0.0
    keep: int = 0
    free: int | None = None
    problem: str = ""
    """The place does not answer: there are no entries, and nobody knows whether there are checkpoints."""
    copy_problem: str = ""
    entries: tuple[Entry, ...] = field(default=())

    @property
    def whole(self) -> list[Entry]:
        """Oldest first."""
        return [entry for entry in self.entries if entry.is_whole]


def news(event: Event) -> News | None:
    """None for any other event, and for one that says nothing."""
    attrs = event.get("attrs") or {}
    if event["event"] != "checkpoint_files" or not isinstance(attrs.get("folder"), str):
        return None
    items = attrs.get("items")
    problem = str(attrs.get("problem") or "")[:300]
    if not isinstance(items, list) and not problem:
        return None
    return News(
        folder=attrs["folder"][:300],
        time=float(event.get("time_ns") or 0) / 1e9,
        copy=str(attrs.get("copy") or "")[:300],
        every=_number(attrs.get("every")),
        keep=int(_number(attrs.get("keep"))),
        free=int(_number(attrs["free"])) if attrs.get("free") is not None else None,
        problem=problem,
        copy_problem=str(attrs.get("copy_problem") or "")[:300],
        entries=() if problem else tuple(_entries(items or [])),
    )


def _entries(items: list[Any]) -> Iterator[Entry]:
    for item in items[-MAX_ITEMS:]:
        if not (isinstance(item, list) and 4 <= len(item) <= 6 and isinstance(item[1], int) and isinstance(item[3], str)):
            continue
        written, copy = (*item[4:], 0.0, "")[0], (*item[5:], "")[0]
        yield Entry(str(item[0])[:200], item[1], int(_number(item[2])), item[3][:300], _moment(written), str(copy)[:300])


def _moment(value: object) -> float:
    """Unix seconds; 0.0 for what is no moment that a calendar has."""
    return seconds if (seconds := _number(value)) < 2.5e11 else 0.0


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e18 else 0.0


def shown_age(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
