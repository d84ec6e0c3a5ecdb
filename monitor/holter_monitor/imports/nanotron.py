"""nanotron's standard output: `[INFO|DP=0|PP=0|TP=0]: iteration: 7 / 100 | consumed_tokens: 85.8G | … | lm_loss: 2.38 | …`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

from holter_monitor.imports.files import LogFile
from holter_monitor.imports.records import Head, Record
from holter_monitor.imports.text import Fields, records, stamp

_LINE = re.compile(r"\biteration:\s*(\d+)\s*/\s*\d+\s*\|(.*)")
_SAVED = re.compile(r"Saving checkpoint at .*?/(\d+)\s*$")
_ANY = re.compile(f"(?:{_LINE.pattern})|(?:{_SAVED.pattern})")
_HUMAN = re.compile(r"^([-+]?[\d.]+)\s*([KMGTPE])$")
_POWERS = {letter: 10.0 ** (3 * power) for power, letter in enumerate("KMGTPE", start=1)}


class Nanotron:
    name: ClassVar[str] = "nanotron"

    def recognises(self, head: Head) -> bool:
        return any(_LINE.search(line) for line in head.text.splitlines() if "iteration:" in line)

    def read(self, log: LogFile, columns: Mapping[str, str]) -> Iterator[Record]:
        """`time_per_iteration_ms: 11.5K` is rounded to three digits by nanotron; a change below one in a thousand is not in the log."""

        def parse(line: str, found: re.Match[str]) -> Record | None:
            iteration, rest, saved = found.groups()
            if saved:
                return Record({}, step=int(saved), time=stamp(line), words=("checkpoint",))
            fields = Fields(columns)
            for part in rest.split("|"):
                name, colon, text = part.partition(":")
                if colon:
                    fields.take(name, spelled(text.strip()))
            return Record(fields.values, step=int(iteration), time=stamp(line))

        return records(log, _ANY, parse)


def spelled(text: str) -> str:
    """`85.8G` -> `85800000000.0`; anything else as it is."""
    found = _HUMAN.match(text)
    return repr(float(found[1]) * _POWERS[found[2]]) if found else text
