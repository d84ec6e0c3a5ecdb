"""Megatron-LM's and Megatron-DeepSpeed's standard output: ` iteration 100/ 500000 | consumed samples: … | lm loss: 2.1E+00 | …`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

from holter_monitor.imports.files import LogFile
from holter_monitor.imports.records import Head, Record
from holter_monitor.imports.text import Fields, records, stamp

_LINE = re.compile(r"\biteration\s+(\d+)\s*/\s*\d+\s*\|(.*)")
_VALIDATION = re.compile(r"validation loss at iteration (\d+).*?\|\s*lm loss value:\s*(\S+)")
_SAVED = re.compile(r"successfully saved checkpoint (?:at|from) iteration\s+(\d+)")
_ANY = re.compile(f"(?:{_LINE.pattern})|(?:{_VALIDATION.pattern})|(?:{_SAVED.pattern})")


class Megatron:
    name: ClassVar[str] = "megatron"

    def recognises(self, head: Head) -> bool:
        return any(_LINE.search(line) and ":" in line for line in head.text.splitlines() if "iteration" in line)

    def read(self, log: LogFile, columns: Mapping[str, str]) -> Iterator[Record]:
        def parse(line: str, found: re.Match[str]) -> Record | None:
            iteration, rest, validated, loss, saved = found.groups()
            if saved:
                return Record({}, step=int(saved), time=stamp(line), words=("checkpoint",))
            fields = Fields(columns)
            if validated:
                fields.take("eval_loss", loss)
                return Record(fields.values, step=int(validated), time=stamp(line), words=("eval",))
            for part in rest.split("|"):
                name, colon, text = part.partition(":")
                if colon:
                    fields.take(name, text)
            return Record(fields.values, step=int(iteration), time=stamp(line))

        return records(log, _ANY, parse)
