"""torchtitan's standard output: `[titan] … - step: 10  loss: 6.1  grad_norm: 2.6  memory: 9.46GiB(64.99%)  tps: 7,282  tflops: 0.52  mfu: 0.17%`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

from holter_monitor.imports.files import LogFile
from holter_monitor.imports.records import Head, Record
from holter_monitor.imports.text import Fields, plain, records, stamp

_LINE = re.compile(r"\bstep:\s*(\d+)\s+(loss:\s.*)")
_RANK = re.compile(r"\[rank(\d+)\]")
_FIELD = re.compile(r"(\w+(?:\([^)]*\))?):\s*([-+]?(?:nan|inf|[\d.,]+(?:e[-+]?\d+)?))(%|[KMGT]iB)?", re.IGNORECASE)
_BYTES = {"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40}
_SAVED = re.compile(r"(?:Saving the checkpoint|Saving a full checkpoint)")


class Torchtitan:
    name: ClassVar[str] = "torchtitan"

    def recognises(self, head: Head) -> bool:
        return any(_LINE.search(plain(line)) and "tps:" in line for line in head.text.splitlines() if "step:" in line)

    def read(self, log: LogFile, columns: Mapping[str, str]) -> Iterator[Record]:
        """Every rank may print the same averages; where the lines say `[rankN]`, the lowest rank of the log speaks for all."""
        speaker: int | None = None

        def parse(line: str, found: re.Match[str]) -> Record | None:
            nonlocal speaker
            rank = _RANK.search(line)
            if rank is not None:
                speaker = int(rank[1]) if speaker is None else min(speaker, int(rank[1]))
                if int(rank[1]) != speaker:
                    return None
            fields = Fields(columns)
            for name, text, unit in _FIELD.findall(found[2]):
                _take(fields, name, text.rstrip(",."), unit)
            return Record(fields.values, step=int(found[1]), time=stamp(line))

        return records(log, _LINE, parse)


def _take(fields: Fields, name: str, text: str, unit: str) -> None:
    if unit in _BYTES:
        fields.take("gpu_memory_used_bytes" if name == "memory" else f"{name}_bytes", repr(float(text.replace(",", "")) * _BYTES[unit]))
    elif unit == "%":
        fields.take(f"{name}_percent", text)
    else:
        fields.take(name, text)
