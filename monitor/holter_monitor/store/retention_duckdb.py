"""What becomes of old points: thinned, then dropped; steps around incidents stay whole as long as any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb

from holter_monitor.errors import Unavailable
from holter_monitor.store.queries_duckdb import DuckDbQueries


class DuckDbStore(DuckDbQueries):
    """The whole sample store: writes, answers, forgets."""

    def thin(self, run: str, *, before_ns: int, every: int, keep: Sequence[tuple[int, int]]) -> int:
        """Of the points older than `before_ns`, keep each `every`th step and the steps in `keep` ([first, last]); how many rows went."""
        return self._delete(run, "step % ? <> 0", [every], before_ns, keep)

    def drop(self, run: str, *, before_ns: int) -> int:
        """Drop all points older than `before_ns`; how many rows went."""
        return self._delete(run, "true", [], before_ns, ())

    def _delete(self, run: str, what: str, values: list[Any], before_ns: int, keep: Sequence[tuple[int, int]]) -> int:
        where = f"time_ns < ? AND {what}" + " AND step NOT BETWEEN ? AND ?" * len(keep)
        bounds = [step for window in keep for step in window]
        return sum(self._delete_from(points, where, [before_ns, *values, *bounds]) for points in self.catalog.tables(run))

    def _delete_from(self, points: str, where: str, values: list[Any]) -> int:
        with self._writing:
            try:
                row = self._writer.execute(f"DELETE FROM {points} WHERE {where}", values).fetchone()  # noqa: S608
            except duckdb.Error as error:
                raise Unavailable(f"old points cannot be forgotten now: {error}") from error
        return int(row[0]) if row else 0

    def oldest_ns(self, run: str) -> int | None:
        """When the run's oldest point was taken."""
        return min(map(int, self._of_all(run, "min(time_ns)")), default=None)

    def runs(self) -> list[str]:
        return self.catalog.runs()

    def size_bytes(self) -> int:
        """Blocks in use and the write-ahead log; the file itself does not shrink, freed blocks are used again before it grows."""
        log = self._path.with_name(self._path.name + ".wal")
        row = self.cursor().execute("SELECT sum(block_size * used_blocks) FROM pragma_database_size()").fetchone()
        return (int(row[0] or 0) if row else 0) + (log.stat().st_size if log.exists() else 0)
