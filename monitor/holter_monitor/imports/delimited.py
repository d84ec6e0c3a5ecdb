"""CSV, TSV and their kin: a header, then one record a line; also several runs in one file, long tables, and wandb's chart exports."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

from holter_monitor.imports.files import LogFile
from holter_monitor.imports.names import Target, number
from holter_monitor.imports.pivot import pivot
from holter_monitor.imports.records import Head, Record
from holter_monitor.imports.tables import CellError, Columns, record

_DELIMITERS = (",", "\t", ";", "|")
_CHART = re.compile(r"^(?P<run>.+) - (?P<metric>.+?)(?P<bound>__MIN|__MAX)?$")
_DECIMAL = re.compile(r"^(\s*[-+]?\d+),(\d+(?:[eE][-+]?\d+)?\s*)$")
_SKIPPED = Target("ignored", "")


class Delimited:
    name: ClassVar[str] = "csv"

    def recognises(self, head: Head) -> bool:
        lines = [line for line in head.text.splitlines()[:20] if line.strip() and not line.startswith("#")]
        if not lines or "\x00" in lines[0] or lines[0].startswith(("{", "[", "<")):
            return False
        delimiter = _delimiter(lines[0])
        try:
            header = _header(lines[0], delimiter)
        except csv.Error:
            return False
        if any(_is_number(cell) for cell in header if cell) or not _has_axis(header):
            return False
        return len(header) > 1 and all(0.5 * len(header) <= len(line.split(delimiter)) for line in lines[1:3])

    def read(self, log: LogFile, columns: Mapping[str, str]) -> Iterator[Record]:
        lines = ((number, line) for number, line in log.lines() if line and not line.startswith("#"))
        first = next(lines, None)
        if first is None:
            raise log.failed("empty", "a header line with column names, such as step,loss", 1)
        delimiter = _delimiter(first[1])
        try:
            header = _header(first[1], delimiter)
        except csv.Error as error:
            raise log.failed(str(error), "a header line with column names, such as step,loss", first[0]) from error
        rows = _rows(log, lines, delimiter, len(header))
        charts = [_CHART.match(name) for name in header[1:]]
        if charts and all(charts):
            return _charts(log, header, rows, columns)
        return _plain(log, header, rows, columns)


def _header(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]


def _is_number(cell: str) -> bool:
    try:
        return number(cell) is not None
    except ValueError:
        return False


def _has_axis(header: list[str]) -> bool:
    """A header names at least one thing that Holter has a word for."""
    columns = Columns({})
    columns.add(header)
    return any(meaning.is_known and meaning.role in ("", "step", "time", "metric") for meaning in columns.targets.values())


def _delimiter(line: str) -> str:
    return max(_DELIMITERS, key=lambda delimiter: (line.count(delimiter), -_DELIMITERS.index(delimiter)))


def _rows(log: LogFile, lines: Iterator[tuple[int, str]], delimiter: str, width: int) -> Iterator[tuple[int, list[str]]]:
    """Cells of each line. A line that csv cannot split, or with more or fewer cells than the header, is broken."""
    for line_number, line in lines:
        if '"' in line:
            try:
                cells = next(csv.reader([line], delimiter=delimiter, strict=True))
            except csv.Error as error:
                log.broken.add(line_number, f"{error}; expected {width} cells")
                continue
        else:
            cells = line.split(delimiter)
        if delimiter == ";" and "," in line:
            # Where a semicolon parts the cells, a comma parts the decimals.
            cells = [_DECIMAL.sub(r"\1.\2", cell) for cell in cells]
        if len(cells) != width:
            log.broken.add(line_number, f"{len(cells)} cells; expected {width}")
            continue
        yield line_number, cells


def _plain(log: LogFile, header: list[str], rows: Iterator[tuple[int, list[str]]], mapped: Mapping[str, str]) -> Iterator[Record]:
    columns = Columns(mapped)
    columns.add(header)
    # Of two columns of one name the first counts; the second has a place in the row and no meaning.
    meanings = [columns.targets[name] if header.index(name) == place else _SKIPPED for place, name in enumerate(header)]
    log.notes += [
        f"column {name!r} stands {header.count(name)} times; the first counts" for name in dict.fromkeys(header) if header.count(name) > 1
    ]
    log.notes += columns.renamed
    if {"metric", "value"} <= {snake.lower() for snake in header}:
        return pivot(log, header, rows, mapped)
    return _records(log, meanings, rows)


def _records(log: LogFile, meanings: list[Target], rows: Iterator[tuple[int, list[str]]]) -> Iterator[Record]:
    for line_number, cells in rows:
        try:
            yield record(zip(meanings, cells, strict=False))
        except CellError as error:
            log.broken.add(line_number, str(error))


def _charts(log: LogFile, header: list[str], rows: Iterator[tuple[int, list[str]]], mapped: Mapping[str, str]) -> Iterator[Record]:
    """A chart exported from wandb's page: `Step, "<run> - <metric>", "<run> - <metric>__MIN", …`: a run is a group of columns."""
    runs: dict[str, list[tuple[int, Target]]] = {}
    for place, name in enumerate(header[1:], start=1):
        match = _CHART.match(name)
        assert match is not None
        if match["bound"] is None and not match["metric"].startswith("_"):
            columns = Columns(mapped)
            columns.add([match["metric"]])
            runs.setdefault(match["run"], []).append((place, columns.targets[match["metric"]]))
    axis = Columns(mapped)
    axis.add(header[:1])
    for line_number, cells in rows:
        try:
            for run, places in runs.items():
                made = record([(axis.targets[header[0]], cells[0]), *((meaning, cells[place]) for place, meaning in places)])
                if made.values:
                    made.run = run
                    yield made
        except CellError as error:
            log.broken.add(line_number, str(error))
