"""What becomes of a batch that the control store refuses: the offending records are found by halving and set aside, all others go in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

from holter_monitor.errors import MonitorError
from holter_monitor.findings import Finding

Item = TypeVar("Item")
STORE_AT_FAULT = (
    MonitorError,
    sa.exc.OperationalError,
    sa.exc.InterfaceError,
    sa.exc.InternalError,
    sa.exc.ProgrammingError,
    sa.exc.InvalidRequestError,
)
"""Away, locked, full, read-only, without a table or a right: any record would be refused, so the batch waits. All else is the record's own fault."""


class Put(Protocol):
    """Has `apply` write the items of a kind."""

    def __call__(self, connection: sa.Connection, kind: str, items: Sequence[Item], apply: Callable[[Sequence[Item]], None], /) -> None: ...


def whole(connection: sa.Connection, kind: str, items: Sequence[Item], apply: Callable[[Sequence[Item]], None]) -> None:
    """All items at once, as nearly always."""
    apply(items)


@dataclass(frozen=True, slots=True)
class Heard:
    """A finding and whose it is."""

    run: str
    finding: Finding


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that the store does not take, and why."""

    kind: str
    """frame, summary, finding."""
    item: Any
    error: Exception


def sift(commit: Callable[[Put], None], forget: Callable[[], None]) -> list[Refused]:
    """Have `commit` write all that the store takes; the answer is what it does not. `forget` is called whenever what was written has been undone."""
    sieve = _Sieve(forget)
    try:
        commit(sieve)
    except BaseException:
        forget()
        raise
    return sieve.refused


@dataclass(slots=True)
class _Sieve:
    forget: Callable[[], None]
    refused: list[Refused] = field(default_factory=list)

    def __call__(self, connection: sa.Connection, kind: str, items: Sequence[Item], apply: Callable[[Sequence[Item]], None]) -> None:
        """One bad record among n costs some 2 log n savepoints."""
        if not items:
            return
        try:
            with connection.begin_nested():
                apply(items)
        except STORE_AT_FAULT:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, the records are to blame: it is said of the one that is found
            self.forget()
            if len(items) == 1:
                self.refused.append(Refused(kind, items[0], error))
                return
            middle = len(items) // 2
            for half in (items[:middle], items[middle:]):
                self(connection, kind, half, apply)
