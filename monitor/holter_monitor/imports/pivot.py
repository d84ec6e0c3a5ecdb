"""Long tables (`run, step, metric, value`: one number a line) made into records. Such a table is held whole: its metrics stand one after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from holter_monitor.imports.files import LogFile
from holter_monitor.imports.names import target
from holter_monitor.imports.records import Record
from holter_monitor.imports.tables import CellError, Columns, record


def pivot(log: LogFile, header: list[str], rows: Iterator[tuple[int, list[str]]], mapped: Mapping[str, str]) -> Iterator[Record]:
    """One record for each run and place on the axis, in the order of the axis."""
    lower = [name.lower() for name in header]
    at_metric, at_value = lower.index("metric"), lower.index("value")
    columns = Columns(mapped)
    columns.add(name for place, name in enumerate(header) if place not in (at_metric, at_value))
    meanings = [(place, columns.targets[name]) for place, name in enumerate(header) if name in columns.targets]
    gathered: dict[tuple[str, int | None], dict[tuple[float, ...], Record]] = {}
    for line_number, cells in rows:
        try:
            made = record((meaning, cells[place]) for place, meaning in meanings)
            value = record([(target(cells[at_metric], mapped), cells[at_value])])
        except CellError as error:
            log.broken.add(line_number, str(error))
            continue
        axis = tuple(
            place for place in (made.step, made.values.get("tokens"), made.values.get("consumed_tokens"), made.time) if place is not None
        )
        of_run = gathered.setdefault((made.run, made.rank), {})
        of_run.setdefault(axis, made).values.update(value.values)
    for of_run in gathered.values():
        yield from (of_run[axis] for axis in sorted(of_run))
