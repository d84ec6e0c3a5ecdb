"""The embedded sample store: a DuckDB file with wide tables for each run, a column a metric.

A run of its own tables, so that dropping a run is dropping tables and a query never wades through other runs. Columns bear numbers, not the
metrics' names: DuckDB folds case (`Loss` and `loss` would be one), and a name from outside never becomes SQL. A new metric is an ALTER TABLE ADD COLUMN,
which touches only the catalog. NULL is "not logged", NaN is NaN.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
from holter.frame import Column

from holter_monitor.errors import DiskFull, SettingsError, Unavailable
from holter_monitor.store import salvage
from holter_monitor.store.batch import Block, blocks
from holter_monitor.store.catalog import Catalog
from holter_monitor.store.ports import Entry
from holter_monitor.store.presence import Presence

logger = logging.getLogger(__name__)
METRICS_PER_RUN = 2_000
ROW_GROUP = 122_880
"""DuckDB's own: so many rows are packed and written together."""
WAL_BYTES = "32MB"
"""The write-ahead log from which DuckDB packs by itself: many small runs, none of which fills a row group."""
CONFIG: dict[str, str | bool | int | float | list[str]] = {"memory_limit": "512MB", "threads": 2, "checkpoint_threshold": WAL_BYTES}
DAMAGE = ("not a valid DuckDB", "orrupt", "checksum", "replaying WAL")


def connect(path: Path) -> duckdb.DuckDBPyConnection:
    """The file, or an empty one if it is damaged: that is set aside, and what the frame log still has is written again."""
    try:
        return duckdb.connect(str(path), config=CONFIG)
    except duckdb.Error as error:
        if not any(word in str(error) for word in DAMAGE):
            raise SettingsError(f"--data: the sample store cannot be opened: {error}") from error
        aside = salvage.set_aside(path)
        logger.error("%s was damaged (%s); it is kept as %s, and an empty one goes on", path, error, aside.name)
        return duckdb.connect(str(path), config=CONFIG)


class DuckDbSamples:
    """Written by one thread; queries (`holter_monitor.store.queries_duckdb`) each take a cursor of their own."""

    def __init__(self, path: Path, *, metrics_per_run: int = METRICS_PER_RUN) -> None:
        self._path = path
        self._database = connect(path)
        self._presence = Presence(path)
        self._writer = self._database.cursor()
        self._writing = threading.Lock()
        self._catalog = Catalog(metrics_per_run)
        self._catalog.create(self._writer)
        self._catalog.load(self._writer)
        self.catalog = self._catalog.published()
        """As of the last commit; what queries go by."""
        self._filled = self._rows()
        self._packed = self._full()

    def write(self, entries: Sequence[Entry]) -> int:
        surplus = 0
        by_run: dict[str, list[Entry]] = {}
        for entry in entries:
            by_run.setdefault(entry.frame.run, []).append(entry)
        self._presence.check()
        with self._writing:
            write = self._writer
            with self._refusals():
                self._pack()
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
            batch = block.having(columns).table(attempts, nodes, columns)
            self._writer.register("batch", batch)
            try:
                self._writer.execute(f"INSERT INTO {table} BY NAME SELECT * FROM batch")  # noqa: S608  numbers only
            finally:
                self._writer.unregister("batch")
            self._filled[table] += batch.num_rows
        return sum(_count(entry.frame.metrics.get(name)) for name in surplus for entry in block.entries)

    def _pack(self) -> None:
        """Write row groups that became full since the last time from the write-ahead log into the file. In mid-group it would write a part, and the
        whole again later: 3.9 bytes a point instead of 2.8. It stands before a transaction: one that has been committed must not be refused."""
        full = self._full()
        if full != self._packed:
            self._writer.execute("CHECKPOINT")
            self._packed = full

    def _rows(self) -> Counter[str]:
        """What the row groups of each table hold, rows that were deleted since too."""
        return Counter(dict(self._writer.execute("SELECT table_name, estimated_size FROM duckdb_tables()").fetchall()))

    def _full(self) -> int:
        """How many row groups of all tables are full."""
        return sum(rows // ROW_GROUP for rows in self._filled.values())

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            with suppress(duckdb.TransactionException):  # it has ended the transaction itself
                self._writer.execute("ROLLBACK")
            self._catalog.load(self._writer)
            self._filled = self._rows()
            kind = DiskFull if "No space left" in str(error) else Unavailable
            raise kind(f"the sample store cannot be written: {error}") from error

    def problem(self) -> str | None:
        return self._presence.problem()

    def offset(self) -> int:
        return self.catalog.offset(self._database.cursor())

    def cursor(self) -> duckdb.DuckDBPyConnection:
        return self._database.cursor()

    def copy_to(self, folder: Path) -> None:
        """The file and its write-ahead log, with nobody writing either: DuckDB writes to both within its own commits only. (Closing the file here gives up
        DuckDB's own lock on it, as POSIX has it; what keeps others away is the lock of the data directory.)"""
        with self._writing:
            for path in (self._path, self._path.with_name(self._path.name + ".wal")):
                if path.exists():
                    shutil.copyfile(path, folder / path.name)

    def close(self) -> None:
        with self._writing:
            self._writer.close()
            self._database.close()


def _count(column: Column | None) -> int:
    """How many values were logged."""
    if column is None:
        return 0
    return len(column.values) if column.present is None else int(column.present.sum())
