"""Questions to the sample store: one rank's values, all ranks at a step, aggregates over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from holter_monitor.errors import Unavailable
from holter_monitor.store.ports import Aggregates, Cells, Rows, Window
from holter_monitor.store.samples_duckdb import DuckDbSamples

# Non-finite values take no part in an aggregate: one NaN of 16,384 ranks would blank the line. `count` tells how many did.
AGGREGATES = {
    "mean": "avg(value)",
    "min": "min(value)",
    "max": "max(value)",
    "median": "median(value)",
    "sum": "sum(value)",
    "count": "count(value)",
}


class DuckDbQueries(DuckDbSamples):
    """The whole sample store: `DuckDbSamples` writes, this reads."""

    def metrics(self, run: str) -> list[str]:
        return self.catalog.metrics(run)

    def attempts(self, run: str) -> dict[int, str]:
        return self.catalog.names("attempts", run)

    def nodes(self, run: str) -> dict[int, str]:
        return self.catalog.names("nodes", run)

    def ranks(self, run: str, metric: str, window: Window, ranks: Sequence[int] | None = None) -> Rows:
        found_at = self.catalog.find(run, metric)
        if found_at is None:
            return Rows(*(np.empty(0, np.int64) for _ in range(6)))
        points, column = found_at
        where, values = self._where(run, column, window)
        if ranks is not None:
            where += f" AND rank IN ({', '.join('?' * len(ranks))})"
            values += ranks
        found = self._fetch(
            f"SELECT attempt, node, rank, step, time_ns, {column} AS value FROM {points} WHERE {where}",  # noqa: S608
            values,
        )
        keep = _newest(found["time_ns"], found["node"], found["rank"], found["step"], found["attempt"])  # every one, nearly always
        return Rows(*(np.asarray(found[name][keep]) for name in ("attempt", "node", "rank", "step", "time_ns", "value")))

    def cells(self, run: str, metric: str, window: Window) -> Cells:
        found_at = self.catalog.find(run, metric)
        if found_at is None:
            return Cells(*(np.empty(0, np.int64) for _ in range(4)))
        points, column = found_at
        where, values = self._where(run, column, window)
        found = self._fetch(
            f"SELECT node, rank, step, {column} AS value FROM {points} WHERE {where} AND rank >= 0",  # noqa: S608
            values,
        )
        if _are_distinct(found["rank"], found["step"]):
            return Cells(found["node"], found["rank"], found["step"], found["value"])
        rows = self.ranks(run, metric, window)
        own = rows.rank >= 0
        return Cells(rows.node[own], rows.rank[own], rows.step[own], rows.value[own])

    def aggregate(self, run: str, metric: str, window: Window, *, how: str, groups: dict[int, int] | None = None) -> Aggregates:
        found_at = self.catalog.find(run, metric)
        if found_at is None:
            return Aggregates(*(np.empty(0, np.int64) for _ in range(6)))
        points, column = found_at
        where, values = self._where(run, column, window)
        cursor = self.cursor()
        group, join = "0", ""
        if groups is not None:
            table = {"rank": np.array(list(groups), np.int32), "grp": np.array(list(groups.values()), np.int32)}
            cursor.register("groups", _arrow(table))
            group, join = "groups.grp", "JOIN groups USING (rank)"
        sql = (
            f"SELECT attempt, step, {group} AS grp, min(time_ns) AS time_ns, {AGGREGATES[how]} AS value, count(value) AS n FROM "  # noqa: S608
            f"(SELECT attempt, rank, step, time_ns, CASE WHEN isfinite({column}::DOUBLE) THEN {column} END AS value "
            f"FROM {points} WHERE {where}) {join} GROUP BY ALL ORDER BY attempt, step, grp"
        )
        found = self._fetch(sql, values, cursor)
        return Aggregates(
            found["attempt"],
            found["step"],
            found["grp"],
            found["time_ns"],
            np.ma.filled(np.ma.asarray(found["value"], dtype=np.float64), np.nan),
            found["n"],
        )

    def lone_rank(self, run: str) -> bool:
        """Whether all rows are of one rank: then there is nothing to aggregate, and a million steps need no grouping."""
        return len({*self._of_all(run, "min(rank)"), *self._of_all(run, "max(rank)")}) == 1

    def _of_all(self, run: str, what: str) -> list[Any]:
        """An aggregate of each sheet of the run in which there is something."""
        found = [self.cursor().execute(f"SELECT {what} FROM {points}").fetchone() for points in self.catalog.tables(run)]  # noqa: S608
        return [row[0] for row in found if row is not None and row[0] is not None]

    def last_step(self, run: str, metric: str) -> int | None:
        found_at = self.catalog.find(run, metric)
        if found_at is None:
            return None
        points, column = found_at
        row = self.cursor().execute(f"SELECT max(step) FROM {points} WHERE {column} IS NOT NULL").fetchone()  # noqa: S608
        return None if row is None or row[0] is None else int(row[0])

    def _where(self, run: str, column: str, window: Window) -> tuple[str, list[Any]]:
        where, values = [f"{column} IS NOT NULL"], []
        if window.from_step is not None:
            where.append("step >= ?")
            values.append(window.from_step)
        if window.to_step is not None:
            where.append("step <= ?")
            values.append(window.to_step)
        if window.attempt is not None:
            numbers = {name: number for number, name in self.attempts(run).items()}
            where.append("attempt = ?")
            values.append(numbers.get(window.attempt, -1))
        return " AND ".join(where), values

    def _fetch(self, sql: str, values: Sequence[Any], cursor: duckdb.DuckDBPyConnection | None = None) -> dict[str, NDArray[Any]]:
        try:
            found: dict[str, Any] = dict((cursor or self.cursor()).execute(sql, list(values)).fetchnumpy())
            return found
        except duckdb.Error as error:
            raise Unavailable(f"the sample store cannot answer: {error}") from error


def _newest(time_ns: NDArray[Any], *keys: NDArray[Any]) -> NDArray[Any] | slice:
    """The order of rows by the keys (the last key is the major one), of equal keys only the newest."""
    if _is_ascending(*keys):  # nearly always: rows lie in the order of their arrival
        return slice(None)
    order = np.lexsort((time_ns, *keys))
    if len(order) < 2:
        return order
    same = np.ones(len(order) - 1, bool)
    for key in keys:
        arranged = key[order]
        same &= arranged[1:] == arranged[:-1]
    last: NDArray[Any] = order[np.append(~same, True)]
    return last


def _are_distinct(rank: NDArray[Any], step: NDArray[Any]) -> bool:
    """Whether no two rows are of one rank and step. Their order does not matter: frames of many nodes lie mixed."""
    if not len(rank):
        return True
    width, height = int(rank.max()) + 1, int(step.max()) - int(step.min()) + 1
    if width * height > 16 * len(rank) + 1_000:
        return False  # too scattered for a map: the long way
    is_there = np.zeros(width * height, bool)
    is_there[(step - step.min()) * width + rank] = True
    return int(np.count_nonzero(is_there)) == len(rank)


def _arrow(columns: dict[str, NDArray[Any]]) -> Any:
    import pyarrow as pa

    return pa.table(columns)


def _is_ascending(*keys: NDArray[Any]) -> bool:
    """Whether the rows ascend by the keys (the last key is the major one), no two alike. A few passes instead of a sort."""
    alike = np.ones(max(0, len(keys[0]) - 1), bool)
    for key in reversed(keys):
        before, after = key[:-1], key[1:]
        if bool((alike & (after < before)).any()):
            return False
        alike &= after == before
    return not bool(alike.any())
