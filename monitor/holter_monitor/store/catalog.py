"""Which numbers stand for which names in the sample store: a run's table, its metrics' columns, its attempts and nodes."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import duckdb
import pyarrow as pa

SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (run VARCHAR PRIMARY KEY, number INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS metrics (run VARCHAR NOT NULL, name VARCHAR NOT NULL, number INTEGER NOT NULL, type VARCHAR NOT NULL);
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


class Catalog:
    """The names live in DuckDB and, for speed, in memory; after a failed transaction `load` brings the two together again."""

    def __init__(self, metrics_per_run: int) -> None:
        self._limit = metrics_per_run
        self.is_changed = False
        """Since the last `published`."""
        self._runs: dict[str, int] = {}
        self._metrics: dict[str, dict[str, tuple[int, str]]] = {}
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
        for run, name, number, kind in cursor.execute("SELECT run, name, number, type FROM metrics ORDER BY number").fetchall():
            self._metrics[run][name] = (number, kind)
        for table in ("attempts", "nodes"):
            self._numbers[table] = {run: {} for run in self._runs}
            rows = cursor.execute(f"SELECT run, name, number FROM {table} ORDER BY number").fetchall()  # noqa: S608
            for run, name, number in rows:
                self._numbers[table][run][name] = number

    @staticmethod
    def offset(cursor: duckdb.DuckDBPyConnection) -> int:
        row = cursor.execute("SELECT consumed FROM consumer").fetchone()
        return int(row[0]) if row else 0

    def has(self, run: str) -> bool:
        return run in self._runs

    def runs(self) -> list[str]:
        return list(self._runs)

    def table(self, run: str) -> str:
        return f"points_{self._runs[run]}"

    def column(self, run: str, metric: str) -> str | None:
        known = self._metrics.get(run, {}).get(metric)
        return None if known is None else f"m{known[0]}"

    def metrics(self, run: str) -> list[str]:
        return list(self._metrics.get(run, {}))

    def names(self, table: str, run: str) -> dict[int, str]:
        """The names of a run's attempts or nodes, by number."""
        return {number: name for name, number in self._numbers[table].get(run, {}).items()}

    def place(self, cursor: duckdb.DuckDBPyConnection, run: str, types: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
        """The columns of a batch's metrics, made where there are none yet, and the metrics for which there is no room."""
        if run not in self._runs:
            self._create_run(cursor, run)
        known = self._metrics[run]
        columns: dict[str, str] = {}
        surplus: list[str] = []
        for name, dtype in types.items():
            kind = TYPES[dtype]
            if name not in known:
                if len(known) >= self._limit:
                    surplus.append(name)
                    continue
                self.is_changed = True
                known[name] = (len(known), kind)
                cursor.execute("INSERT INTO metrics VALUES (?, ?, ?, ?)", [run, name, known[name][0], kind])
                cursor.execute(f"ALTER TABLE {self.table(run)} ADD COLUMN m{known[name][0]} {kind}")
            elif known[name][1] != kind:
                self._widen(cursor, run, name, kind)
            columns[name] = f"m{known[name][0]}"
        return columns, surplus

    def _create_run(self, cursor: duckdb.DuckDBPyConnection, run: str) -> None:
        number = max(self._runs.values(), default=0) + 1
        cursor.execute("INSERT INTO runs VALUES (?, ?)", [run, number])
        cursor.execute(f"CREATE TABLE points_{number} (attempt INTEGER, node INTEGER, rank INTEGER, step BIGINT, time_ns BIGINT)")
        self.is_changed = True
        self._runs[run] = number
        self._metrics[run] = {}
        for names in self._numbers.values():
            names[run] = {}

    def _widen(self, cursor: duckdb.DuckDBPyConnection, run: str, name: str, kind: str) -> None:
        """A metric came as integers and now as floats (or as f4, now f8): its column takes the type that holds both."""
        number, held = self._metrics[run][name]
        wider = WIDER[frozenset({held, kind})]
        if wider != held:
            cursor.execute(f"ALTER TABLE {self.table(run)} ALTER COLUMN m{number} TYPE {wider}")
            cursor.execute("UPDATE metrics SET type = ? WHERE run = ? AND name = ?", [wider, run, name])
            self.is_changed = True
            self._metrics[run][name] = (number, wider)

    def numbers(self, cursor: duckdb.DuckDBPyConnection, table: str, run: str, wanted: Iterable[str]) -> dict[str, int]:
        """The numbers of attempts or nodes, given at their first appearance."""
        names = self._numbers[table][run]
        fresh = [name for name in dict.fromkeys(wanted) if name not in names]
        if fresh:
            self.is_changed = True
            names.update({name: number for number, name in enumerate(fresh, len(names) + 1)})
            # One statement for all: two thousand nodes appear in the same second, and DuckDB takes a row at a time slowly.
            rows = {"run": [run] * len(fresh), "name": fresh, "number": [names[name] for name in fresh]}
            cursor.register("fresh", pa.table(rows))
            cursor.execute(f"INSERT INTO {table} SELECT run, name, number FROM fresh")  # noqa: S608
            cursor.unregister("fresh")
        return names
