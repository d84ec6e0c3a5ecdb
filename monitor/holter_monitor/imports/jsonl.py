"""JSON lines: one object a line, nested objects flattened with `/` (wandb's history, torchtitan, MLflow-like loggers, anybody's own)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from holter_monitor.imports.files import LogFile
from holter_monitor.imports.names import target
from holter_monitor.imports.records import Head, Record
from holter_monitor.imports.tables import CellError, Columns, record

_DEPTH = 4
_LOOKED_AT = 50


class JsonLines:
    name: ClassVar[str] = "jsonl"

    def recognises(self, head: Head) -> bool:
        """At least one of the first objects names something that Holter has a word for: a folder has other JSON lines too."""
        rows = (_object(line) for line in head.text.splitlines()[:_LOOKED_AT] if line.startswith("{"))
        return any(row is not None and is_record(row) for row in rows)

    def read(self, log: LogFile, columns: Mapping[str, str]) -> Iterator[Record]:
        known = Columns(columns)
        for line_number, line in log.lines():
            if not line.strip():
                continue
            row = _object(line)
            if row is None:
                log.broken.add(line_number, "no JSON object; expected one object a line")
                continue
            try:
                yield from_row(row, known)
            except CellError as error:
                log.broken.add(line_number, str(error))
        log.notes += known.renamed


def _object(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def is_record(row: Mapping[str, Any]) -> bool:
    """Whether a JSON object holds a number under a name that Holter has a word for."""
    return any(isinstance(cell, (int, float)) and target(name, {}).is_known for name, cell in _flat(row, "", _DEPTH))


def from_row(row: Mapping[str, Any], columns: Columns) -> Record:
    """A record of one JSON object. Raises `CellError`."""
    flat = dict(_flat(row, "", _DEPTH))
    columns.add(name for name in flat if name not in columns.targets)
    return record((columns.targets[name], cell) for name, cell in flat.items())


def _flat(row: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, object]]:
    for name, cell in row.items():
        if isinstance(cell, dict):
            if depth:
                yield from _flat(cell, f"{prefix}{name}/", depth - 1)
        elif not isinstance(cell, list):
            yield prefix + name, cell
