"""Rows with named cells made into records: what CSV, JSON lines, Parquet and wandb have in common."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from math import isnan

from holter_monitor.imports.names import ABSENT, Target, number, snake, target
from holter_monitor.imports.records import Record

_FRACTION = re.compile(r"\.(\d+)")
_WORD_ENDS = str.maketrans(";|", ",,")


class CellError(ValueError):
    """A cell that does not hold what its column must."""


@dataclass(slots=True)
class Columns:
    """The meaning of each column, decided at its first sight: the preferred one of several step columns is the axis, and so on."""

    mapped: Mapping[str, str]
    targets: dict[str, Target] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)
    """role -> the column that has it."""
    renamed: list[str] = field(default_factory=list)
    """Columns that lost their role or metric to another, for the notes."""

    def add(self, names: Iterable[str]) -> None:
        """Decides the meaning of `names` that are not known yet, the preferred first."""
        new = [(name, target(name, self.mapped)) for name in dict.fromkeys(names) if name not in self.targets]
        for name, meaning in sorted(new, key=lambda pair: pair[1].order):
            claim = meaning.role or meaning.metric
            if claim not in self.taken:
                self.taken[claim] = name
                self.targets[name] = meaning
            else:
                self._yield(name, meaning, claim)
        if "step" not in self.taken and "consumed_tokens" not in self.taken and "tokens" in self.taken:
            # Where tokens are the only axis they are those of the whole run so far, not of one step.
            self.taken["consumed_tokens"] = name = self.taken.pop("tokens")
            self.targets[name] = Target("", "consumed_tokens")

    def _yield(self, name: str, meaning: Target, claim: str) -> None:
        """A second column for a claim keeps its own name as a metric; a twin of the same name is left out."""
        own = snake(name)
        if meaning.role or own in self.taken:
            self.targets[name] = Target("ignored", "")
        else:
            self.taken[own] = name
            self.targets[name] = Target("", own, is_known=False)
        if not meaning.role:
            self.renamed.append(f"{claim} is read from {self.taken[claim]!r}, not from {name!r}")


def record(cells: Iterable[tuple[Target, object]]) -> Record:
    """One row as a record. Raises `CellError` where a cell of a known column is neither a number nor empty."""
    values: dict[str, float] = {}
    made = Record(values)
    for meaning, cell in cells:
        if cell is None or cell == "":
            continue
        if meaning.role:
            _take_role(made, meaning, cell)
            continue
        try:
            # The common case first: this line runs for every cell of a million rows.
            value = float(cell) if isinstance(cell, (str, float, int)) else number(cell)
        except ValueError:
            value = _second_look(meaning, cell)
        if value is not None:
            values[meaning.metric] = value * meaning.scale if meaning.scale != 1.0 else value
    return made


def _second_look(meaning: Target, cell: object) -> float | None:
    try:
        return number(cell)
    except ValueError as error:
        if meaning.is_known:
            raise CellError(f"{meaning.metric} is {str(cell)[:40]!r}; expected a number, nan, inf or nothing") from error
        return None


def _take_role(made: Record, meaning: Target, cell: object) -> None:
    if meaning.role == "step":
        made.step = whole(cell, "step")
    elif meaning.role == "time":
        made.time = seconds(cell)
    elif meaning.role == "rank":
        made.rank = whole(cell, "rank")
    elif meaning.role == "run":
        made.run = str(cell).strip()
    elif meaning.role == "stage":
        made.stage = str(cell).strip()[:80]
    elif meaning.role == "event":
        made.words = words(cell)


def words(cell: object) -> tuple[str, ...]:
    """`checkpoint; eval` -> two events."""
    found = [word.strip() for word in str(cell).translate(_WORD_ENDS).split(",")]
    return tuple(word for word in found if word and word.lower() not in ABSENT and word.lower() != "nan")


def whole(cell: object, name: str) -> int | None:
    """A step or a rank: an integer, also as `3.0` or `1e3`."""
    if type(cell) is int:
        return cell
    try:
        if isinstance(cell, str) and cell.isdigit() and len(cell) < 18:
            return int(cell)
        value = number(cell)
    except ValueError as error:
        raise CellError(f"{name} is {str(cell)[:40]!r}; expected a whole number") from error
    if value is None:
        return None
    if not (-(2**53) < value < 2**53 and value.is_integer()):
        raise CellError(f"{name} is {str(cell)[:40]!r}; expected a whole number")
    return int(value)


def seconds(cell: object) -> float | None:
    """A time: seconds, milliseconds or nanoseconds since 1970, seconds since the start, or ISO 8601."""
    try:
        value = number(cell)
    except ValueError:
        return _iso(cell)
    if value is None or isnan(value):
        return None
    if value > 1e17:
        return value * 1e-9
    return value * 1e-3 if value > 1e11 else value


def _iso(cell: object) -> float | None:
    # Python 3.10 reads three or six digits of a second and nothing else; pandas writes nine.
    text = _FRACTION.sub(lambda found: f".{found[1][:6]:0<6}", str(cell).strip().replace("Z", "+00:00"), count=1)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise CellError(f"time is {str(cell)[:40]!r}; expected seconds or an ISO 8601 date") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
