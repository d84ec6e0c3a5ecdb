"""What the text logs of the frameworks have in common: lines that tell a record among lines that do not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from holter_monitor.imports.files import LogFile
from holter_monitor.imports.names import number, target
from holter_monitor.imports.records import Record
from holter_monitor.imports.tables import CellError, seconds

ANSI = re.compile(r"\x1b\[[0-9;]*m")
STAMP = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?|\d\d/\d\d/\d{4} \d\d:\d\d:\d\d)")


def plain(line: str) -> str:
    """A line without the terminal's colours."""
    return ANSI.sub("", line) if "\x1b" in line else line


def stamp(line: str) -> float | None:
    """The date and time that a logger put before the line, as unix seconds (read as UTC: only differences count)."""
    found = STAMP.search(line)
    if found is None:
        return None
    text = found[1].replace(",", ".")
    if "/" in text:
        text = datetime.strptime(text, "%m/%d/%Y %H:%M:%S").isoformat()
    try:
        return seconds(text)
    except CellError:
        return None


@dataclass(slots=True)
class Fields:
    """Named values of a line put into a record, under Holter's names."""

    mapped: Mapping[str, str]
    values: dict[str, float] = field(default_factory=dict)

    def take(self, name: str, text: str) -> None:
        """Raises `CellError` where a metric that Holter has a word for is no number."""
        meaning = target(name.strip(), self.mapped)
        if meaning.role:
            return
        try:
            value = number(text.strip())
        except ValueError as error:
            if meaning.is_known:
                raise CellError(f"{name.strip()} is {text.strip()[:40]!r}; expected a number") from error
            return
        if value is not None:
            self.values.setdefault(meaning.metric, value * meaning.scale)


def records(log: LogFile, line_of: re.Pattern[str], parse: Callable[[str, re.Match[str]], Record | None]) -> Iterator[Record]:
    """A record for each line in which `line_of` is found; a line that has it and does not parse is broken."""
    for line_number, raw in log.lines():
        line = plain(raw)
        found = line_of.search(line)
        if found is None:
            continue
        try:
            made = parse(line, found)
        except (CellError, ValueError) as error:
            log.broken.add(line_number, str(error))
            continue
        if made is not None:
            yield made
