"""MLPerf logs: lines with `:::MLLOG {"namespace": …, "time_ms": …, "key": …, "value": …, "metadata": {…}}` (mlcommons/logging)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from holter_monitor.imports.files import LogFile
from holter_monitor.imports.records import Head, Record
from holter_monitor.imports.text import Fields, records

_LINE = re.compile(r":::ML(?:LOG|L)?\s+(\{.*\})")
_STEPS = ("step_num", "step", "iteration", "iteration_num", "samples_count", "epoch_num")
_MEASURES = {"train_loss": "loss", "loss": "loss", "eval_loss": "eval_loss", "throughput": "samples_per_second"}
_EVENTS = {"eval_start": "eval", "checkpoint_start": "checkpoint", "save_checkpoint": "checkpoint", "checkpoint": "checkpoint"}


class Mllog:
    name: ClassVar[str] = "mllog"

    def recognises(self, head: Head) -> bool:
        return _LINE.search(head.text) is not None

    def read(self, log: LogFile, columns: Mapping[str, str]) -> Iterator[Record]:
        def parse(_line: str, found: re.Match[str]) -> Record | None:
            entry = json.loads(found[1])
            if not isinstance(entry, dict):
                raise ValueError("no JSON object after :::MLLOG; expected one")
            return _record(entry, columns)

        return records(log, _LINE, parse)


def _record(entry: dict[str, Any], columns: Mapping[str, str]) -> Record | None:
    key, value = str(entry.get("key")), entry.get("value")
    metadata = entry.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    made = Record({}, step=_step(metadata), time=_seconds(entry.get("time_ms")))
    if key in _EVENTS:
        made.words = (_EVENTS[key],)
        return made
    fields = Fields(columns)
    if key == "tracked_stats" and isinstance(value, dict):
        made.step = made.step if made.step is not None else _step(value)
        for name, cell in value.items():
            fields.take(_MEASURES.get(str(name), str(name)), str(cell))
    elif key in _MEASURES or key == "eval_accuracy" or key in columns:
        fields.take(_MEASURES.get(key, key), str(value))
    made.values = fields.values
    return made if made.values else None


def _step(metadata: Mapping[str, Any]) -> int | None:
    for name in _STEPS:
        place = metadata.get(name)
        if isinstance(place, (int, float)) and not isinstance(place, bool) and abs(place) < 2**53:
            return int(place)
    return None


def _seconds(milliseconds: object) -> float | None:
    return milliseconds * 1e-3 if isinstance(milliseconds, (int, float)) else None
