"""JSON lines: one object a line, nested objects flattened with `/` (wandb's history, torchtitan, MLflow-like loggers, anybody's own)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from holter_monitor.imports.files import LogFile
from holter_monitor.imports.records import Head, Record
from holter_monitor.imports.tables import CellError, Columns, record

_DEPTH = 4


class JsonLines:
    name: ClassVar[str] = "jsonl"

    def recognises(self, head: Head) -> bool:
        lines = [line for line in head.text.splitlines()[:5] if line.strip()]
        return bool(lines) and any(_object(line) is not None for line in lines)

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
