"""The embedded sample store: a DuckDB file with wide tables for each run, a column a metric.

A run of its own tables, so that dropping a run is dropping tables and a query never wades through other runs. Columns bear numbers, not the
metrics' names: DuckDB folds case (`Loss` and `loss` would be one), and a name from outside never becomes SQL. A new metric is an ALTER TABLE ADD COLUMN,
which touches only the catalog. NULL is "not logged", NaN is NaN.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
from holter.frame import Column

from holter_monitor.errors import DiskFull, Unavailable
from holter_monitor.store.batch import Block, blocks
from holter_monitor.store.catalog import Catalog
from holter_monitor.store.ports import Entry

MEMORY_LIMIT = "512MB"
THREADS = 2
METRICS_PER_RUN = 2_000


class DuckDbSamples:
    """Written by one thread; queries (`holter_monitor.store.queries_duckdb`) each take a cursor of their own."""

    def __init__(self, path: Path, *, metrics_per_run: int = METRICS_PER_RUN) -> None:
        self._path = path
        self._database = duckdb.connect(str(path), config={"memory_limit": MEMORY_LIMIT, "threads": THREADS})
        self._writer = self._database.cursor()
        self._writing = threading.Lock()
        self._catalog = Catalog(metrics_per_run)
        self._catalog.create(self._writer)
        self._catalog.load(self._writer)
        self.catalog = self._catalog.published()
        """As of the last commit; what queries go by."""

    def write(self, entries: Sequence[Entry]) -> int:
        surplus = 0
        by_run: dict[str, list[Entry]] = {}
        for entry in entries:
            by_run.setdefault(entry.frame.run, []).append(entry)
        with self._writing:
            write = self._writer
            with self._refusals():
                write.execute("BEGIN")
                for run, own in by_run.items():
                    for block in blocks(own):
                        surplus += self._insert(run, block)
                write.execute("UPDATE consumer SET consumed = ?", [entries[-1].offset])
                write.execute("COMMIT")
            if self._catalog.is_changed:
                self.catalog = self._catalog.published()
        return surplus

    def _insert(self, run: str, block: Block) -> int:
        """How many values found no room."""
        tables, surplus = self._catalog.place(self._writer, run, block.types)
        attempts = self._catalog.numbers(self._writer, "attempts", run, block.attempts)
        nodes = self._catalog.numbers(self._writer, "nodes", run, block.nodes)
        for table, columns in tables.items():
            self._writer.register("batch", block.having(columns).table(attempts, nodes, columns))
            try:
                self._writer.execute(f"INSERT INTO {table} BY NAME SELECT * FROM batch")  # noqa: S608  numbers only
            finally:
                self._writer.unregister("batch")
        return sum(_count(entry.frame.metrics.get(name)) for name in surplus for entry in block.entries)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            with suppress(duckdb.TransactionException):  # it has ended the transaction itself
                self._writer.execute("ROLLBACK")
            self._catalog.load(self._writer)
            kind = DiskFull if "No space left" in str(error) else Unavailable
            raise kind(f"the sample store cannot be written: {error}") from error

    def offset(self) -> int:
        return self.catalog.offset(self._database.cursor())

    def cursor(self) -> duckdb.DuckDBPyConnection:
        return self._database.cursor()

    def close(self) -> None:
        with self._writing:
            self._writer.close()
            self._database.close()


def _count(column: Column | None) -> int:
    """How many values were logged."""
    if column is None:
        return 0
    return len(column.values) if column.present is None else int(column.present.sum())
