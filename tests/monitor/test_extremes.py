"""An aggregate over many ranks, thinned: picked from the blocks' extremes, it is what picking from every step would give, and nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
from collector import frame
from holter_monitor.store import summaries, tables
from holter_monitor.store.control import open_control
from holter_monitor.store.extremes import AGGREGATES
from holter_monitor.store.ports import Window
from holter_monitor.store.rolling import Roller
from holter_monitor.store.upserts import insert_new

LAST = 9_999


def row(step: int) -> dict:
    value = None if step % 700 == 7 else math.sin(step) + (50 if step == 4_321 else 0)
    numbers = {"mean": value, "min": value and value - 1, "max": value and value + 1, "median": value and -value}
    count = 9 + step % 4
    rest = {"count": count, "non_finite": count if value is None else step % 3, "min_rank": 0, "max_rank": 1, "at": step / 4}
    return {"run": "r", "metric": "loss", "attempt": "a", "step": step, **numbers, **rest}


def expected(step: int, how: str) -> float:
    told = row(step)
    finite = told["count"] - told["non_finite"]
    value = {"sum": told["mean"] and told["mean"] * finite, "count": finite}.get(how, told.get(how))
    return math.nan if value is None else value


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Ten thousand steps, some of which came late, one in 13 never, rolled up as they came."""
    control = open_control(f"sqlite:///{tmp_path_factory.mktemp('store') / 'c.sqlite'}")
    with control.write() as connection:
        connection.execute(tables.runs.insert(), {"id": "r", "project": "p", "name": "n", "created_at": 0.0, "updated_at": 0.0})
        life = {"run": "r", "attempt": "a", "number": 1, "started_at": 1.0, "state": "running", "mesh": {}, "world_size": 16}
        connection.execute(tables.attempts.insert(), life)
    there = [step for step in range(3, LAST + 1) if step % 13]
    late = [step for step in there if step % 1_000 == 1]
    roller, early = Roller(), [step for step in there if step not in late]
    for part in (*(early[start : start + 700] for start in range(0, len(early), 700)), late):
        rows = [row(step) for step in part]
        with control.write() as connection:
            insert_new(connection, tables.step_summaries, rows)
            roller.roll(connection, rows)
    yield control
    control.close()


@pytest.mark.parametrize("how", AGGREGATES)
@pytest.mark.parametrize(("max_points", "width"), [(20, 512), (200, 64), (4_000, 1)])
@pytest.mark.parametrize("window", [(None, None), (100, 9_000)])
def test_no_extreme_is_lost_and_no_point_is_made_up(store, how, max_points, width, window):
    first, last = window
    with store.read() as connection:
        line, names = summaries.read(connection, "r", "loss", Window(from_step=first, to_step=last), how, max_points=max_points)
    steps = [step for step in range(max(3, first or 0), (last or LAST) + 1) if step % 13]
    every = np.array([expected(step, how) for step in steps])
    assert (line.total, names, set(line.attempt)) == (len(steps), {1: "a"}, {1})
    assert np.all(np.diff(line.step) > 0)
    np.testing.assert_allclose(line.value, [expected(step, how) for step in line.step.tolist()])
    np.testing.assert_allclose(line.time_ns / 1e9, line.step / 4)
    assert len(line.step) == len(steps) if width == 1 else len(line.step) < 2 * len(steps) / width + 3 * width
    for block in np.unique(np.array(steps) // width):
        whole, kept = every[np.array(steps) // width == block], line.value[line.step // width == block]
        if np.isfinite(whole).all():
            assert (kept.min(), kept.max()) == pytest.approx((whole.min(), whole.max()))
        else:
            assert not np.isfinite(kept).all(), "the step without a finite value is what one looks for"


def test_blocks_from_before_they_had_extremes_are_read_step_by_step(store):
    with store.write() as connection:
        connection.execute(tables.step_rollups.update().where(tables.step_rollups.c.block == 5).values(extremes=None))
        line, _ = summaries.read(connection, "r", "loss", Window(), "max", max_points=20)
        assert len(line.step) == line.total
        connection.rollback()


def test_a_metric_that_nobody_logged_has_no_points(store):
    with store.read() as connection:
        line, _ = summaries.read(connection, "r", "nothing", Window(), "max", max_points=20)
    assert (line.total, len(line.step)) == (0, 0)


@pytest.mark.parametrize("ranks", [8, 9])
def test_sum_and_count_are_of_the_finite_values_however_many_ranks(served, ranks):
    """Eight ranks are read from their points, nine from the summaries."""
    run = served.new_run(f"sums-{ranks}", world_size=ranks)
    for step in range(3):
        values = [math.nan if (step, rank) == (1, 3) else float(rank) for rank in range(ranks)]
        assert served.send(frame(run, step, ranks=tuple(range(ranks)), metrics={"loss": values}, boot=run)).status_code == 200
    served.until(lambda: len(served.get(f"runs/{run}/series", metric="loss", agg="max")["value"]) == 3)
    whole = sum(range(ranks))
    assert served.get(f"runs/{run}/series", metric="loss", agg="sum")["value"] == [whole, whole - 3, whole]
    assert served.get(f"runs/{run}/series", metric="loss", agg="count")["value"] == [ranks, ranks - 1, ranks]
