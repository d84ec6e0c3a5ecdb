"""Boxes of two columns, as OpenAI baselines and Stable-Baselines3 print them: `| loss | 0.31 |` between lines of dashes, a box a record."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

from holter_monitor.imports.files import LogFile
from holter_monitor.imports.names import target
from holter_monitor.imports.records import Head, Record
from holter_monitor.imports.tables import CellError
from holter_monitor.imports.text import Fields, plain

_EDGE = re.compile(r"^\s*-{12,}\s*$")
_ROW = re.compile(r"^\s*\|\s*([\w /.()-]+?)\s*\|\s*(\S+)\s*\|\s*$")
_ENOUGH = 3
"""Rows of the head that must look so, under an edge."""


class Boxes:
    name: ClassVar[str] = "boxes"

    def recognises(self, head: Head) -> bool:
        lines = [plain(line) for line in head.text.splitlines()]
        return any(_EDGE.match(line) for line in lines) and sum(1 for line in lines if _ROW.match(line)) >= _ENOUGH

    def read(self, log: LogFile, columns: Mapping[str, str]) -> Iterator[Record]:
        """The edge below a box closes it; where it names no step, boxes are counted."""
        box = Record({})
        for line_number, raw in log.lines():
            line = plain(raw)
            if _EDGE.match(line):
                if box.values:
                    yield box
                box = Record({})
            elif found := _ROW.match(line):
                try:
                    _take(box, found[1].rpartition("/")[2] if found[1].startswith("time/") else found[1], found[2], columns)
                except CellError as error:
                    log.broken.add(line_number, str(error))
        if box.values:
            yield box


def _take(box: Record, name: str, text: str, columns: Mapping[str, str]) -> None:
    meaning = target(name, columns)
    if meaning.role == "step" and text.isdigit():
        box.step = int(text)
    fields = Fields(columns, box.values)
    fields.take(name, text)
