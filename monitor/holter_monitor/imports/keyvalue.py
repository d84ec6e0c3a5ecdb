"""Any other text log whose lines tell where the run is and numbers by name: `step=10 loss=2.31`, `Epoch 1 | Step 10 | loss: 2.31`,
`iter 10 loss 2.31`, `Train Epoch: 1 [640/60000] Loss: 2.3`, a progress bar, a step with its values indented below it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from holter_monitor.imports.files import LogFile
from holter_monitor.imports.names import target
from holter_monitor.imports.records import Head, Record
from holter_monitor.imports.tables import CellError
from holter_monitor.imports.text import Fields, plain, stamp

_COUNT = r"(\d{1,3}(?:,\d{3})+|\d+[KM]?)\b"
"""A step may be rounded (`step:12K`)."""
_ROUNDED = {"K": 1_000, "M": 1_000_000}
_PAIR = re.compile(
    r"((?:[A-Za-z]+ )?[A-Za-z_][\w/.-]*)(\s*[:=]\s*|\s+)([-+]?(?:\d[\d.,]*(?:e[-+]?\d+)?|nan|inf(?:inity)?))\s?(ms|s|%)?(?!\w)",
    re.IGNORECASE,
)
_EPOCH = re.compile(r"\b(?:epochs?|train)\b\s*[:=#]?\s*\[?\s*(\d+)|^\[\s*(\d+),", re.IGNORECASE)
_ENOUGH = 3
"""Lines that must look so, further on than the ones before: prose mentions steps and losses too."""
_TIMES = frozenset({"time", "dt", "took", "iter_dt"})


@dataclass(frozen=True, slots=True)
class Axis:
    """One way to say where the run is."""

    pattern: re.Pattern[str]
    is_whole: bool
    """It counts over the whole run; else it begins anew with each epoch."""

    def place(self, line: str) -> int | None:
        found = self.pattern.search(line)
        if found is None:
            return None
        said = next(text for text in found.groups() if text).upper()
        return int(said.rstrip("KM").replace(",", "")) * _ROUNDED.get(said[-1], 1)


AXES = (
    # `cfg.steps=50000` is a setting and no step.
    Axis(
        re.compile(rf"(?<![.\w])(?:global[_ ]step|num_updates|steps?|iteration|iter|it|update)\b\s*[:=#]?\s*{_COUNT}", re.IGNORECASE), True
    ),
    Axis(re.compile(rf"(?<![./\w])batch\b\s*[:=#]?\s*{_COUNT}", re.IGNORECASE), False),
    Axis(re.compile(r"(?:\[|^|[|:])\s*(\d+)\s*/\s*\d+\b(?!/)|^\[\s*\d+,\s*(\d+)\]"), False),
    Axis(re.compile(rf"\bepochs?\b\s*[:=#]?\s*\[?\s*{_COUNT}", re.IGNORECASE), True),
)
"""The finest first."""


class KeyValue:
    name: ClassVar[str] = "keyvalue"

    def recognises(self, head: Head) -> bool:
        return _axis(head) is not None

    def read(self, log: LogFile, columns: Mapping[str, str]) -> Iterator[Record]:
        axis = _axis(log.head()) or AXES[0]
        base = last = 0
        epoch: int | None = None
        for number, entry in _entries(axis, log.lines()):
            try:
                values = _values(entry, columns)
            except (CellError, ValueError) as error:
                log.broken.add(number, str(error))
                continue
            place, new_epoch = axis.place(entry) or 0, _epoch(entry)
            if place < last and (not axis.is_whole if new_epoch is None or epoch is None else new_epoch > epoch):
                base += last
            last, epoch = place, new_epoch
            if values:
                yield Record(values, step=base + place, time=stamp(entry))


def _axis(head: Head) -> Axis | None:
    """The first along which the head's lines go forward with something that is known."""
    lines = head.text.splitlines()
    for axis in AXES:
        places = [axis.place(entry) or 0 for _, entry in _entries(axis, enumerate(lines)) if _is_telling(entry)]
        if sum(after > before for before, after in pairwise(places)) >= _ENOUGH - 1:
            return axis
    return None


def _entries(axis: Axis, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """The lines that say where the run is, each with what stands indented below it."""
    entry: tuple[int, str] | None = None
    for number, raw in lines:
        line = plain(raw)
        if axis.place(line) is not None:
            if entry is not None:
                yield entry
            entry = number, line
        elif entry is not None and line[:1].isspace():
            entry = entry[0], f"{entry[1]}\n{line}"
        elif entry is not None:
            yield entry
            entry = None
    if entry is not None:
        yield entry


def _named(entry: str, columns: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What the entry gives a name: any that stands before `:` or `=`, and words before a number if they are known."""
    for name, mark, text, unit in _PAIR.findall(entry):
        names = [_with_unit(each, unit) for each in dict.fromkeys((name, name.rpartition(" ")[2]))]
        known = next((each for each in names if target(each, columns).is_known), None)
        if known is not None or mark.strip():
            yield known or names[-1], text.rstrip(",.")


def _is_telling(entry: str) -> bool:
    meanings = (target(name, {}) for name, _ in _named(entry, {}))
    return any(meaning.is_known and not meaning.role for meaning in meanings)


def _values(entry: str, columns: Mapping[str, str]) -> dict[str, float]:
    fields = Fields(columns)
    for name, text in _named(entry, columns):
        fields.take(name, text)
    fields.values.pop("epoch", None)
    return fields.values


def _epoch(entry: str) -> int | None:
    found = _EPOCH.search(entry)
    return None if found is None else int(found[1] or found[2])


def _with_unit(name: str, unit: str) -> str:
    """`time: 560ms` names its unit behind the number."""
    if unit.lower() == "ms" and not name.endswith("ms"):
        return "step_time_ms" if name.lower() in _TIMES else f"{name}_ms"
    return f"{name}_percent" if unit == "%" else name
