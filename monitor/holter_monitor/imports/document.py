"""Logs that are one JSON document: Hugging Face's `trainer_state.json`, arrays of objects, TensorBoard's scalar downloads, columns as lists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from holter_monitor.imports.files import LogFile
from holter_monitor.imports.jsonl import from_row
from holter_monitor.imports.names import target
from holter_monitor.imports.records import Head, Record
from holter_monitor.imports.tables import CellError, Columns

_LOOKED_AT = 1 << 16


class TrainerState:
    """`log_history` of a Trainer. Its last entry (`train_runtime`) tells averages over the whole run and is no record of a step."""

    name: ClassVar[str] = "trainer_state"

    def recognises(self, head: Head) -> bool:
        text = head.text.lstrip()
        return text.startswith("{") and ('"log_history"' in text or ('"global_step"' in text[:4096] and '"best_metric"' in text[:4096]))

    def read(self, log: LogFile, columns: Mapping[str, str]) -> Iterator[Record]:
        state = _loaded(log)
        history = state.get("log_history") if isinstance(state, dict) else None
        if not isinstance(history, list):
            raise log.failed("no list `log_history`", "a trainer_state.json of the Hugging Face Trainer")
        return _records(log, [row for row in history if not (isinstance(row, dict) and "train_runtime" in row)], columns)


class Document:
    name: ClassVar[str] = "json"

    def recognises(self, head: Head) -> bool:
        """A folder of logs holds configurations and vocabularies too: the document must name something that Holter has a word for."""
        text = head.text.lstrip()
        if text.startswith("["):
            return text[1:].lstrip()[:1] == "[" or _names(text, r"[-\d\"nN]")
        return text.startswith("{") and _names(text, r"\[\s*[-\d\"nN]")

    def read(self, log: LogFile, columns: Mapping[str, str]) -> Iterator[Record]:
        content = _loaded(log)
        if isinstance(content, dict):
            lists = {name: cells for name, cells in content.items() if isinstance(cells, list)}
            if not lists:
                raise log.failed("an object without lists", "an array of objects, or columns as lists")
            longest = max(len(cells) for cells in lists.values())
            content = [{name: cells[row] for name, cells in lists.items() if row < len(cells)} for row in range(longest)]
        if not isinstance(content, list):
            raise log.failed(f"a bare {type(content).__name__}", "an array of objects, or columns as lists")
        if all(isinstance(row, list) and len(row) == 3 for row in content):
            # TensorBoard's download of one scalar: [wall time, step, value].
            content = [{"wall_time": row[0], "step": row[1], "value": row[2]} for row in content]
        return _records(log, content, columns)


def _names(text: str, value: str) -> bool:
    names = re.findall(rf'"([^"\\]{{1,64}})"\s*:\s*{value}', text[:_LOOKED_AT])
    return any(target(name, {}).is_known and not target(name, {}).role for name in names)


def _records(log: LogFile, rows: list[Any], columns: Mapping[str, str]) -> Iterator[Record]:
    known = Columns(columns)
    for place, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            log.broken.add(place, "no JSON object; expected one object a record")
            continue
        try:
            yield from_row(row, known)
        except CellError as error:
            log.broken.add(place, str(error))
    log.notes += known.renamed


def _loaded(log: LogFile) -> Any:
    text = log.document().decode("utf-8-sig", "replace")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise log.failed(error.msg.lower(), "a JSON document, whole", error.lineno) from error
    except RecursionError as error:
        raise log.failed("nested too deep", "a JSON document of records") from error
