"""What the page asks for: curves along restarts, time lost, goodput, the heat map, a rank's place, the picture of an incident."""

from __future__ import annotations

import base64
import struct
from contextlib import suppress

import numpy as np
import pytest
import sqlalchemy as sa
from collector import Collector, frame
from holter_monitor.goodput import CAUSES
from holter_monitor.store import rollups, tables
from holter_monitor.store.control import open_control
from holter_monitor.store.rolling import Roller
from holter_monitor.store.rollups import Buckets, Source
from holter_monitor.store.upserts import insert_new


def fill(served: Collector, run: str, steps: range, *, attempt: str = "a1", start: float = 1_700_000_000.0, **metrics) -> None:
    """One step a second and two ranks; a metric is a value or a function of (step, rank)."""
    for step in steps:
        values = {name: [value(step, rank) if callable(value) else value for rank in (0, 1)] for name, value in metrics.items()}
        at = np.full(2, int((start + step) * 1e9))
        answer = served.send(frame(run, step, ranks=(0, 1), metrics=values, attempt=attempt, boot=f"{run}-{attempt}", time_ns=at))
        assert answer.status_code == 200, answer.text
    last = steps[-1]
    served.until(lambda: served.get(f"runs/{run}/curves", metrics=next(iter(metrics)))["to_step"] == last)


def test_thinning_keeps_a_spike_of_one_step(served: Collector) -> None:
    run = served.new_run("spike", world_size=2)
    fill(served, run, range(1, 201), loss=lambda step, rank: 9.0 if (step, rank) == (77, 1) else 2.0)
    answer = served.get(f"runs/{run}/curves", metrics="loss", max_points=10)
    curve = answer["curves"]["loss"]
    assert len(curve["step"]) <= 11 and answer["width"] == 20
    assert max(curve["max"]) == 9.0 and min(curve["min"]) == 2.0


def test_a_step_that_a_restart_repeated_counts_once_with_its_newest_attempt(served: Collector) -> None:
    run = served.new_run("rewound", world_size=2)
    fill(served, run, range(1, 101), loss=1.0, tokens=10.0, step_time_seconds=1.0)
    fill(served, run, range(51, 121), attempt="a2", start=1_700_000_100.0, loss=3.0, tokens=10.0, step_time_seconds=1.0)
    answer = served.get(f"runs/{run}/curves", metrics="loss,tokens,step_time_seconds", max_points=1000)
    curve = answer["curves"]["loss"]
    assert curve["step"] == list(range(1, 121))
    assert curve["mean"] == [1.0] * 50 + [3.0] * 70
    assert answer["total"]["value"][-1] == 120 * 2 * 10
    late = served.get(f"runs/{run}/curves", metrics="tokens", from_step=101, max_points=1000)
    assert late["total"]["value"][0] == 101 * 2 * 10, "tokens count from the first step whatever the window"
    goodput = served.get(f"runs/{run}/goodput")
    assert goodput["recomputed_seconds"] == pytest.approx(50)
    parts = [goodput[f"{cause}_seconds"] for cause in CAUSES]
    assert sum(parts) == pytest.approx(goodput["wall_seconds"])
    assert goodput["goodput"] == pytest.approx(goodput["productive_seconds"] / goodput["wall_seconds"])


def test_time_lost_leaves_out_the_start_and_counts_the_stalls(served: Collector) -> None:
    run = served.new_run("stalls", world_size=2)
    fill(served, run, range(1, 101), step_time_seconds=lambda step, rank: 60.0 if step == 1 else 5.0 if step in (50, 80) else 1.0)
    lost = served.get(f"runs/{run}/curves", metrics="step_time_seconds")["lost"]
    assert lost["base"] == 1.0 and lost["seconds"][-1] == 8.0
    assert lost["share"] == pytest.approx(8 / (80 + 8))
    assert served.get(f"runs/{run}/goodput")["startup_seconds"] >= 59


def test_nan_and_absent_stay_two_things(served: Collector) -> None:
    run = served.new_run("nan", world_size=2)
    fill(served, run, range(1, 11), loss=lambda step, rank: float("nan") if step == 5 else None if step == 7 else 2.0)
    curve = served.get(f"runs/{run}/curves", metrics="loss", max_points=1000)["curves"]["loss"]
    assert 7 not in curve["step"]
    at = curve["step"].index(5)
    assert curve["mean"][at] is None and curve["non_finite"][at] == 2


def test_a_run_that_has_not_stepped_answers_empty(served: Collector) -> None:
    run = served.new_run("empty")
    answer = served.get(f"runs/{run}/curves", metrics="loss,tokens,step_time_seconds")
    assert answer["curves"] == {} and answer["lost"]["share"] is None
    assert served.get(f"runs/{run}/goodput")["goodput"] is None
    assert served.get(f"runs/{run}/heatmap", metric="loss")["rows"] == []
    assert served.http.get(f"/api/v1/runs/{run}/ranks/0").status_code == 404


def test_the_heat_map_names_the_rank_that_stands_apart(served: Collector) -> None:
    run = served.new_run("fleet", world_size=64)
    for step in range(1, 31):
        compute = [1 + 0.001 * ((rank * 7 + step) % 5) + (0.3 if rank == 42 else 0) for rank in range(64)]
        served.send(frame(run, step, ranks=tuple(range(64)), metrics={"compute_seconds": compute}, boot=run))
    served.until(lambda: len(served.get(f"runs/{run}/heatmap", metric="compute_seconds")["steps"]) == 30)
    answer = served.get(f"runs/{run}/heatmap", metric="compute_seconds")
    assert answer["by"] == "rank" and len(answer["rows"]) == 64
    (outlier,) = answer["outliers"]
    assert outlier["rank"] == 42 and answer["rows"][outlier["row"]]["name"] == "rank 42" and outlier["score"] > 4
    values = np.frombuffer(base64.b64decode(answer["values"]), "<f4").reshape(64, 30)
    assert values[42].min() > 1.29 and np.nanmax(np.delete(values, 42, axis=0)) < 1.01
    by_node = served.get(f"runs/{run}/heatmap", metric="compute_seconds", by="node", columns=10)
    assert [row["name"] for row in by_node["rows"]] == ["n1"] and len(by_node["steps"]) == 10


def test_equal_ranks_have_no_outlier_and_a_nan_is_marked(served: Collector) -> None:
    run = served.new_run("equal", world_size=8)
    for step in range(1, 11):
        values = [float("nan") if (rank, step) == (3, 5) else 2.0 + 1e-7 * rank for rank in range(8)]
        served.send(frame(run, step, ranks=tuple(range(8)), metrics={"loss": values}, boot=run))
    served.until(lambda: len(served.get(f"runs/{run}/heatmap", metric="loss")["steps"]) == 10)
    answer = served.get(f"runs/{run}/heatmap", metric="loss")
    assert answer["outliers"] == []
    values = np.frombuffer(base64.b64decode(answer["values"]), "<f4").reshape(8, 10)
    assert np.isinf(values[3, 4]) and np.isfinite(np.delete(values.ravel(), 34)).all()


def test_a_rank_s_place_shows_its_own_and_its_host_s_metrics(served: Collector) -> None:
    run = served.new_run("place", world_size=2)
    mesh = {
        "event": "rank_started",
        "rank": 1,
        "step": None,
        "time_ns": 1,
        "attrs": {"gpu": 3, "mesh": {"dp": 1, "tp": 0}, "world_size": 2},
    }
    served.send(frame(run, 1, step=1, ranks=(0, 1), metrics={"loss": [2.0, 2.5]}, events=[mesh], boot=run))
    served.send(frame(run, 2, step=1, ranks=(-1,), metrics={"host_load_1m": 7.0}, boot=run))
    served.send(frame(run, 3, step=1, ranks=(-1,), metrics={"host_load_1m": 99.0}, node="n2", boot=run))
    path = f"/api/v1/runs/{run}/ranks/1"
    place = served.until(lambda: (found := served.http.get(path).json()).get("host") and found)
    assert place["node"] == "n1" and place["metrics"]["loss"]["value"] == [2.5]
    assert place["host"]["host_load_1m"]["value"] == [7.0]


def test_the_picture_of_an_incident_is_a_png(served: Collector) -> None:
    run = served.new_run("picture", world_size=2)
    fill(served, run, range(1, 31), loss=lambda step, rank: float("nan") if step >= 25 else 2.0)
    incident = served.until(lambda: served.get("incidents", run=run)["items"])[0]
    answer = served.http.get(f"/api/v1/incidents/{incident['id']}/plot.png")
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
    assert struct.unpack(">I", answer.content[16:20]) == (1088,)
    assert served.http.get("/api/v1/incidents/nope/plot.png").status_code == 404


def summaries(first: int, last: int, metric: str = "step_time_seconds") -> list[dict]:
    steps = [(step, None if step % 500 == 7 else 1 + (step * 37 % 101) / 100) for step in range(first, last + 1) if step % 997]
    same = {"run": "r", "metric": metric, "attempt": "a", "count": 2, "min_rank": 0, "max_rank": 1, "median": 1.0}
    return [
        {**same, "step": s, "at": float(s), "mean": v, "min": v, "max": v and v + 1, "non_finite": 2 if v is None else 0} for s, v in steps
    ]


@pytest.fixture
def store(tmp_path):
    control = open_control(f"sqlite:///{tmp_path / 'c.sqlite'}")
    with control.write() as connection:
        connection.execute(tables.runs.insert(), {"id": "r", "project": "p", "name": "n", "created_at": 0.0, "updated_at": 0.0})
    yield control
    control.close()


def check(connection: sa.Connection, last: int) -> None:
    """Wide buckets from the blocks equal one scan of the summaries; so do the single steps."""
    source = Source("r", "step_time_seconds", "a")
    for low, high in ((3, last), (70, last - 13), (100, 130), (last - 5, last)):
        for width in (128, 1_024, 4_096):
            wide = rollups.buckets(connection, source, low, high, width=width)
            plain = rollups.read(connection, source, low, high, width=width)
            for name in Buckets.__slots__:
                np.testing.assert_allclose(getattr(wide, name), getattr(plain, name), err_msg=f"{name} {low}–{high} of {last} by {width}")
        steps, seconds = rollups.durations(connection, source, low, high)
        rows = [row for row in summaries(low, min(high, last)) if row["max"] is not None]
        assert (steps.tolist(), seconds.tolist()) == ([row["step"] for row in rows], [row["max"] for row in rows])


def test_rolled_blocks_say_what_the_summaries_say(store) -> None:
    """Also after the run went on, after a restart (a new roller), at ragged ends and over a NaN."""
    roller, begun = Roller(), 3
    for last in (60, 2_000, 2_100, 2_175, 9_999):
        for first in range(begun, last + 1, 500):
            rows = summaries(first, min(first + 499, last))
            with store.write() as connection:
                insert_new(connection, tables.step_summaries, rows)
                roller.roll(connection, rows)
        begun, roller = last + 1, Roller() if last == 2_100 else roller
        with store.read() as connection:
            check(connection, last)
            assert rollups.rolled_end(connection, Source("r", "step_time_seconds", "a")) == last // 64 * 64


def test_a_straggler_s_step_changes_the_block_it_belongs_to(store) -> None:
    roller, rows = Roller(), summaries(0, 9_000)
    late = {100, 101, 3_000, 8_990}
    for part in ([row for row in rows if row["step"] not in late], [row for row in rows if row["step"] in late]):
        for start in range(0, len(part), 1_000):
            with store.write() as connection:
                insert_new(connection, tables.step_summaries, part[start : start + 1_000])
                roller.roll(connection, part[start : start + 1_000])
    with store.read() as connection:
        check(connection, 9_000)


def test_a_store_from_before_the_blocks_is_read_and_catches_up_piece_by_piece(store) -> None:
    rows = summaries(0, 6_000)
    with store.write() as connection:
        insert_new(connection, tables.step_summaries, rows)
    with store.read() as connection:
        check(connection, 6_000)
    ends = []
    for step in range(6_001, 6_009):
        with store.write() as connection:
            insert_new(connection, tables.step_summaries, summaries(step, step))
            Roller().roll(connection, summaries(step, step))
            ends.append(rollups.rolled_end(connection, Source("r", "step_time_seconds", "a")))
            check(connection, step)
    assert ends[0] < 1_100 and ends == sorted(ends) and ends[-1] == 6_008 // 64 * 64


def test_steps_that_are_far_apart_cost_no_more_than_near_ones(store) -> None:
    roller, source = Roller(), Source("r", "step_time_seconds", "a")
    (one,) = summaries(1, 1)
    for step in (5, 10**6, 10**12, 4 * 10**18):
        with store.write() as connection:
            insert_new(connection, tables.step_summaries, [one | {"step": step}])
            roller.roll(connection, [one | {"step": step}])
    with store.read() as connection:
        found = rollups.buckets(connection, source, 0, 4 * 10**18, width=4_096)
        assert found.step.tolist() == [5, 10**6, 10**12, 4 * 10**18]


def test_a_rolled_transaction_that_failed_is_rolled_again(store) -> None:
    roller = Roller()
    rows = summaries(0, 300)
    with suppress(ZeroDivisionError), store.write() as connection:
        insert_new(connection, tables.step_summaries, rows)
        roller.roll(connection, rows)
        raise ZeroDivisionError
    roller.forget()
    with store.write() as connection:
        assert rollups.rolled_end(connection, Source("r", "step_time_seconds", "a")) == 0
        insert_new(connection, tables.step_summaries, rows)
        roller.roll(connection, rows)
        check(connection, 300)
        assert rollups.rolled_end(connection, Source("r", "step_time_seconds", "a")) == 256
