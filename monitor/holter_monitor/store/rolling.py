"""Rolls step summaries up in blocks, in the transaction that writes them: each block once, when the steps have gone past it, and again when a
straggler arrives."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa

from holter_monitor.store import extremes
from holter_monitor.store.rollups import BLOCK, BLOCKS, PER_STEP, ROW, WIDTHS, Buckets, Source, read, rolled_end, stored
from holter_monitor.store.tables import step_rollups
from holter_monitor.store.upserts import upsert

PIECE = 1_024
"""Steps of one metric that a transaction rolls up at most: a store from before there were blocks catches up without holding anybody up."""
VALUES = tuple(extremes.of_summaries(ROW)[name] for name in extremes.AGGREGATES)
CHANGE = [*Buckets.__slots__, "maxima", "extremes"]


class Roller:
    """Used by one thread. Remembers where each curve's open block begins."""

    def __init__(self) -> None:
        self._ends: dict[Source, int] = {}

    def forget(self) -> None:
        """The transaction failed: what was rolled up in it is not there."""
        self._ends.clear()

    def roll(self, connection: sa.Connection, summaries: Sequence[Mapping[str, Any]]) -> None:
        """After the summaries were written: the blocks that they completed, and those that they came late for."""
        touched: dict[Source, set[int]] = {}
        for row in summaries:
            touched.setdefault(Source(row["run"], row["metric"], row["attempt"]), set()).add(row["step"] // BLOCK)
        for source, blocks in touched.items():
            self._advance(connection, source, max(blocks) * BLOCK, {block for block in blocks if block >= 0})

    def _advance(self, connection: sa.Connection, source: Source, newest: int, blocks: set[int]) -> None:
        end = self._ends[source] if source in self._ends else rolled_end(connection, source)
        done = end if newest <= end else _reach(connection, source, end, newest)
        spans = [(block * BLOCK, block * BLOCK + BLOCK - 1) for block in sorted(blocks) if block * BLOCK < end] + [(end, done - 1)]
        found = [_roll(connection, source, first, last) for first, last in spans if first <= last]
        for narrow, wide in itertools.pairwise(WIDTHS):
            changed = {step // wide for buckets in found for step in buckets.step.tolist()}
            for block in sorted(block for block in changed if (block + 1) * wide <= done):
                _lift(connection, source, narrow, wide, block)
        self._ends[source] = done


def _reach(connection: sa.Connection, source: Source, end: int, newest: int) -> int:
    """Where the blocks end after this piece: at `newest`, the begin of the open block, unless that is too much for one transaction."""
    query = sa.select(ROW.step).where(*source.of(ROW), ROW.step >= end, ROW.step < newest).order_by(ROW.step).offset(PIECE).limit(1)
    beyond = connection.scalar(query)
    return newest if beyond is None else int(beyond) // BLOCK * BLOCK


def _roll(connection: sa.Connection, source: Source, first: int, last: int) -> Buckets:
    found = read(connection, source, first, last, width=BLOCK)
    _write(
        connection,
        source,
        BLOCK,
        found,
        {"maxima": maxima(connection, source, first, last), "extremes": ends(connection, source, first, last)},
    )
    return found


def _lift(connection: sa.Connection, source: Source, narrow: int, wide: int, block: int) -> None:
    ratio = wide // narrow
    low, high = block * ratio, block * ratio + ratio - 1
    _write(
        connection,
        source,
        wide,
        stored(connection, source, low, high, width=narrow).merged(wide),
        {"extremes": wider(connection, source, low, high, width=narrow)},
    )


def maxima(connection: sa.Connection, source: Source, first: int, last: int) -> dict[int, bytes]:
    """Of each block its steps' maxima over ranks, as float64; NaN where there is none. Only of `PER_STEP`."""
    if source.metric not in PER_STEP:
        return {}
    found: dict[int, Any] = {}
    query = sa.select(ROW.step, ROW.max).where(*source.of(ROW), ROW.step.between(first, last))
    for step, value in connection.execute(query):
        if value is not None:
            found.setdefault(step // BLOCK, np.full(BLOCK, np.nan))[step % BLOCK] = value
    return {block: values.astype("<f8").tobytes() for block, values in found.items()}


def ends(connection: sa.Connection, source: Source, first: int, last: int) -> dict[int, bytes]:
    """Of each block its extremes."""
    query = sa.select(ROW.step, ROW.at, *VALUES).where(*source.of(ROW), ROW.step.between(first, last)).order_by(ROW.step)
    rows = itertools.groupby(connection.execute(query), key=lambda row: row.step // BLOCK)
    return {block: extremes.of_steps([tuple(row) for row in own]) for block, own in rows}


def wider(connection: sa.Connection, source: Source, low: int, high: int, *, width: int) -> dict[int, bytes]:
    """The extremes of the wide block that the blocks `low` to `high` make; none where one of them is from before there were any."""
    query = (
        sa.select(BLOCKS.extremes).where(*source.of(BLOCKS), BLOCKS.width == width, BLOCKS.block.between(low, high)).order_by(BLOCKS.block)
    )
    blocks = connection.scalars(query).all()
    return {} if None in blocks else {low // (high - low + 1): extremes.of_blocks(blocks)}


def _write(connection: sa.Connection, source: Source, width: int, found: Buckets, packed: Mapping[str, Mapping[int, bytes]]) -> None:
    key = {"run": source.run, "metric": source.metric, "attempt": source.attempt, "width": width}
    columns: dict[str, list[Any]] = {name: getattr(found, name).tolist() for name in Buckets.__slots__}
    rows = []
    for index, step in enumerate(columns["step"]):
        block = step // width
        values = {name: None if math.isnan(column[index]) else column[index] for name, column in columns.items()}
        blobs = {name: packed.get(name, {}).get(block) for name in ("maxima", "extremes")}
        rows.append(key | values | {"block": block} | blobs)
    upsert(connection, step_rollups, rows, change=CHANGE)
