"""What every importer makes of a log: records, in the log's own order; and what can be wrong with a log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from holter_monitor.imports.files import LogFile

NAMED_LINES = 5
"""How many broken lines of one file are named; the rest are counted."""


class LogError(Exception):
    """A log could not be read; says which file, which line and what was expected."""

    def __init__(self, path: str, reason: str, *, expected: str, line: int | None = None) -> None:
        self.path, self.reason, self.expected, self.line = path, reason, expected, line
        place = path if line is None else f"{path}, line {line}"
        super().__init__(f"{place}: {reason}; expected {expected}")


@dataclass(slots=True)
class Record:
    """One record of a log: what was logged, and only that. A printed `nan` is in `values`; an empty cell is not."""

    values: dict[str, float]
    step: int | None = None
    """None where the log has no step axis: the records are counted then."""
    rank: int | None = None
    time: float | None = None
    """Seconds, since 1970 or since the start of the run, as the log has it."""
    run: str = ""
    """Which run of the file, where one file holds several."""
    stage: str = ""
    """The stage of the training that the log names, in its own word."""
    words: tuple[str, ...] = ()
    """The events declared at this record."""


@dataclass(slots=True)
class BrokenLines:
    """The lines of one file that could not be used: the first few by name, all of them by number."""

    count: int = 0
    named: list[str] = field(default_factory=list)

    def add(self, line: int, reason: str) -> None:
        self.count += 1
        if len(self.named) < NAMED_LINES:
            self.named.append(f"line {line}: {reason}")


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a log, decompressed: what a format is recognised by."""

    path: str
    start: bytes

    @property
    def text(self) -> str:
        encoding = "utf-16" if self.start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        return self.start.decode(encoding, "replace")


class Importer(Protocol):
    """One format. `recognises` looks at content, never at the name; `read` streams, and raises `LogError` where it cannot go on."""

    name: ClassVar[str]

    def recognises(self, head: Head) -> bool: ...

    def read(self, log: LogFile, columns: Mapping[str, str]) -> Iterator[Record]:
        """The records of `log`; `columns` is what `--map` said: column -> metric, or one of `names.ROLES`."""
        ...
