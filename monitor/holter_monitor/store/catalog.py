"""Which numbers stand for which names in the sample store: a run's tables, its metrics' columns, its attempts and nodes.

A run's metrics lie in sheets, tables of `COLUMNS` metrics each. A new metric is a new column in the last sheet; more than fit there open a sheet that is
made with all of them at once. DuckDB copies the description of the whole table with every ALTER and keeps the copies until it is done: two thousand
columns in one table took 780 MiB, in sheets they take 40.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (run VARCHAR PRIMARY KEY, number INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS metrics (run VARCHAR NOT NULL, name VARCHAR NOT NULL, number INTEGER NOT NULL, type VARCHAR NOT NULL);
ALTER TABLE metrics ADD COLUMN IF NOT EXISTS sheet INTEGER DEFAULT 0;
CREATE TABLE IF NOT EXISTS attempts (run VARCHAR NOT NULL, name VARCHAR NOT NULL, number INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS nodes (run VARCHAR NOT NULL, name VARCHAR NOT NULL, number INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS consumer (consumed BIGINT NOT NULL);
INSERT INTO consumer SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM consumer);
"""
TYPES = {"<f4": "FLOAT", "<f8": "DOUBLE", "<i4": "INTEGER", "<i8": "BIGINT"}
WIDER = {
    frozenset({"INTEGER", "BIGINT"}): "BIGINT",
    frozenset({"INTEGER", "FLOAT"}): "DOUBLE",
    frozenset({"BIGINT", "FLOAT"}): "DOUBLE",
    frozenset({"INTEGER", "DOUBLE"}): "DOUBLE",
    frozenset({"BIGINT", "DOUBLE"}): "DOUBLE",
    frozenset({"FLOAT", "DOUBLE"}): "DOUBLE",
}

METRIC = {"sheet": "sheet", "number": "number", "type": "kind"}
"""Column of the table `metrics` → field of a `Place`."""
KEYS = "attempt INTEGER, node INTEGER, rank INTEGER, step BIGINT, time_ns BIGINT"
COLUMNS = 128
"""Metrics in a sheet, at most: the design load's 24 fit five times, and its ALTERs cost half a millisecond."""


class Place(NamedTuple):
    """Where a metric lies."""

    sheet: int
    number: int
    kind: str

    @property
    def column(self) -> str:
        return f"m{self.number}"


class Catalog:
    """The names live in DuckDB and, for speed, in memory; after a failed transaction `load` brings the two together again."""

    def __init__(self, metrics_per_run: int) -> None:
        self._limit = metrics_per_run
        self.is_changed = False
        """Since the last `published`."""
        self._runs: dict[str, int] = {}
        self._metrics: dict[str, dict[str, Place]] = {}
        self._numbers: dict[str, dict[str, dict[str, int]]] = {"attempts": {}, "nodes": {}}

    def published(self) -> Catalog:
        """A copy for readers, to be made after a commit: names of a transaction that is still under way must not be asked for."""
        self.is_changed = False
        return copy.deepcopy(self)

    @staticmethod
    def create(cursor: duckdb.DuckDBPyConnection) -> None:
        cursor.execute(SCHEMA)

    def load(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._runs = dict(cursor.execute("SELECT run, number FROM runs").fetchall())
        self._metrics = {run: {} for run in self._runs}
        query = "SELECT run, name, sheet, number, type FROM metrics ORDER BY number"
        for run, name, *place in cursor.execute(query).fetchall():
            self._metrics[run][name] = Place(*place)
        for table in ("attempts", "nodes"):
            self._numbers[table] = {run: {} for run in self._runs}
            rows = cursor.execute(f"SELECT run, name, number FROM {table} ORDER BY number").fetchall()  # noqa: S608
            for run, name, number in rows:
                self._numbers[table][run][name] = number

    @staticmethod
    def offset(cursor: duckdb.DuckDBPyConnection) -> int:
        row = cursor.execute("SELECT consumed FROM consumer").fetchone()
        return int(row[0]) if row else 0

    def runs(self) -> list[str]:
        return list(self._runs)

    def tables(self, run: str) -> list[str]:
        """All sheets of the run; none of a run that is not known."""
        return [self._table(run, sheet) for sheet in range(self._last_sheet(run) + 1)] if run in self._runs else []

    def find(self, run: str, metric: str) -> tuple[str, str] | None:
        """The table and the column of a metric."""
        place = self._metrics.get(run, {}).get(metric)
        return None if place is None else (self._table(run, place.sheet), place.column)

    def _table(self, run: str, sheet: int) -> str:
        return f"points_{self._runs[run]}" + (f"_{sheet}" if sheet else "")

    def _last_sheet(self, run: str) -> int:
        return max((place.sheet for place in self._metrics[run].values()), default=0)

    def metrics(self, run: str) -> list[str]:
        return list(self._metrics.get(run, {}))

    def names(self, table: str, run: str) -> dict[int, str]:
        """The names of a run's attempts or nodes, by number."""
        return {number: name for name, number in self._numbers[table].get(run, {}).items()}

    def place(self, cursor: duckdb.DuckDBPyConnection, run: str, types: Mapping[str, str]) -> tuple[dict[str, dict[str, str]], list[str]]:
        """The columns of a batch's metrics by table, made where there are none yet, and the metrics for which there is no room."""
        fresh = [name for name in types if name not in self._metrics.get(run, {})]
        room = max(0, self._limit - len(self._metrics.get(run, {})))
        if run not in self._runs:
            self._create_run(cursor, run)
        self._add(cursor, run, {name: TYPES[types[name]] for name in fresh[:room]})
        known = self._metrics[run]
        tables: dict[str, dict[str, str]] = {}
        for name, dtype in types.items():
            if name in known:
                if known[name].kind != TYPES[dtype]:
                    self._widen(cursor, run, name, TYPES[dtype])
                tables.setdefault(self._table(run, known[name].sheet), {})[name] = known[name].column
        return tables, fresh[room:]

    def _create_run(self, cursor: duckdb.DuckDBPyConnection, run: str) -> None:
        number = max(self._runs.values(), default=0) + 1
        cursor.execute("INSERT INTO runs VALUES (?, ?)", [run, number])
        cursor.execute(f"CREATE TABLE points_{number} ({KEYS})")
        self.is_changed = True
        self._runs[run] = number
        self._metrics[run] = {}
        for names in self._numbers.values():
            names[run] = {}

    def _add(self, cursor: duckdb.DuckDBPyConnection, run: str, kinds: Mapping[str, str]) -> None:
        """New metrics: into the last sheet if all fit, else into sheets of their own."""
        if not kinds:
            return
        self.is_changed = True
        known, last = self._metrics[run], self._last_sheet(run)
        fits = Counter(place.sheet for place in known.values())[last] + len(kinds) <= COLUMNS
        places = {
            name: Place(last if fits else last + 1 + index // COLUMNS, len(known) + index, kind)
            for index, (name, kind) in enumerate(kinds.items())
        }
        known.update(places)
        rows = {"run": [run] * len(places), "name": list(places)}
        self._insert(cursor, "metrics", rows | {key: [getattr(place, field) for place in places.values()] for key, field in METRIC.items()})
        for sheet in dict.fromkeys(place.sheet for place in places.values()):
            columns = [f"{place.column} {place.kind}" for place in places.values() if place.sheet == sheet]
            self._make(cursor, self._table(run, sheet), columns, is_new=not fits)

    @staticmethod
    def _make(cursor: duckdb.DuckDBPyConnection, table: str, columns: Sequence[str], *, is_new: bool) -> None:
        if is_new:
            cursor.execute(f"CREATE TABLE {table} ({KEYS}, {', '.join(columns)})")
        else:
            for column in columns:
                cursor.execute(f"ALTER TABLE {table} ADD COLUMN {column}")

    def _widen(self, cursor: duckdb.DuckDBPyConnection, run: str, name: str, kind: str) -> None:
        """A metric came as integers and now as floats (or as f4, now f8): its column takes the type that holds both."""
        place = self._metrics[run][name]
        wider = WIDER[frozenset({place.kind, kind})]
        if wider != place.kind:
            cursor.execute(f"ALTER TABLE {self._table(run, place.sheet)} ALTER COLUMN {place.column} TYPE {wider}")
            cursor.execute("UPDATE metrics SET type = ? WHERE run = ? AND name = ?", [wider, run, name])
            self.is_changed = True
            self._metrics[run][name] = place._replace(kind=wider)

    def numbers(self, cursor: duckdb.DuckDBPyConnection, table: str, run: str, wanted: Iterable[str]) -> dict[str, int]:
        """The numbers of attempts or nodes, given at their first appearance."""
        names = self._numbers[table][run]
        fresh = [name for name in dict.fromkeys(wanted) if name not in names]
        if fresh:
            self.is_changed = True
            names.update({name: number for number, name in enumerate(fresh, len(names) + 1)})
            self._insert(cursor, table, {"run": [run] * len(fresh), "name": fresh, "number": [names[name] for name in fresh]})
        return names

    @staticmethod
    def _insert(cursor: duckdb.DuckDBPyConnection, table: str, rows: Mapping[str, list[Any]]) -> None:
        """One statement for all: two thousand nodes appear in the same second, and DuckDB takes a row at a time slowly."""
        cursor.register("fresh", pa.table(dict(rows)))
        cursor.execute(f"INSERT INTO {table} BY NAME SELECT * FROM fresh")  # noqa: S608
        cursor.unregister("fresh")
