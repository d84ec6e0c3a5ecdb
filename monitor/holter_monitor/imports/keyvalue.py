"""Any other text log whose lines tell a step and numbers by name: `step=10 loss=2.31`, `Step 10 | loss: 2.31 | lr: 3e-4`, `epoch 1 step 10 loss 2.31`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

from holter_monitor.imports.files import LogFile
from holter_monitor.imports.names import target
from holter_monitor.imports.records import Head, Record
from holter_monitor.imports.text import Fields, plain, records, stamp

_LINE = re.compile(r"(?<![.\w])(?:global[_ ]step|steps?|iteration|iter|it)\b\s*[:=#]?\s*(\d{1,3}(?:,\d{3})+|\d+)([KM]\b)?", re.IGNORECASE)
"""A step may be rounded (`step:12K`); `cfg.steps=50000` is a setting and no step."""
_ROUNDED = {"": 1, "K": 1_000, "M": 1_000_000}
_PAIR = re.compile(r"([A-Za-z_][\w/.-]*)\s*[:=]\s*([-+]?(?:\d[\d.,]*(?:e[-+]?\d+)?|nan|inf(?:inity)?))\s?(ms|s|%)?(?!\w)", re.IGNORECASE)
_ENOUGH = 3
"""Lines of the head that must look so: prose mentions steps too."""


class KeyValue:
    name: ClassVar[str] = "keyvalue"

    def recognises(self, head: Head) -> bool:
        lines = (line for line in map(plain, head.text.splitlines()) if _LINE.search(line))
        looks = sum(
            1 for line in lines if any(target(name, {}).is_known and not target(name, {}).role for name, _, _ in _PAIR.findall(line))
        )
        return looks >= _ENOUGH

    def read(self, log: LogFile, columns: Mapping[str, str]) -> Iterator[Record]:
        def parse(line: str, found: re.Match[str]) -> Record | None:
            fields = Fields(columns)
            for name, text, unit in _PAIR.findall(line):
                fields.take(_with_unit(name, unit), text.rstrip(",."))
            fields.values.pop("epoch", None)
            return (
                Record(fields.values, step=int(found[1].replace(",", "")) * _ROUNDED[(found[2] or "").upper()], time=stamp(line))
                if fields.values
                else None
            )

        return records(log, _LINE, parse)


def _with_unit(name: str, unit: str) -> str:
    """`time: 560ms` names its unit behind the number."""
    if unit.lower() == "ms" and not name.endswith("ms"):
        return "step_time_ms" if name.lower() in ("time", "dt") else f"{name}_ms"
    return f"{name}_percent" if unit == "%" else name
