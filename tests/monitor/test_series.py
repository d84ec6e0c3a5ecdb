"""Series: thinned without losing what one looks for; by group; several runs on one axis."""

import numpy as np
import pytest
from collector import frame
from holter_monitor.series import Series, numbers, thin
from hypothesis import given
from hypothesis import strategies as st


def series(values) -> Series:
    count = len(values)
    return Series(np.ones(count, int), np.arange(count), np.arange(count), np.array(values, float))


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=500), st.integers(4, 60))
def test_thinning_keeps_extremes_ends_and_order(values, limit):
    whole, kept = series(values), thin(series(values), limit)
    assert len(kept) <= limit
    assert kept.step.tolist() == sorted(set(kept.step.tolist()))
    assert (kept.step[0], kept.step[-1]) == (0, len(values) - 1)
    assert all(whole.value[step] == value or np.isnan(value) for step, value in zip(kept.step, kept.value, strict=True))
    if np.isfinite(whole.value).all():
        assert (kept.value.min(), kept.value.max()) == (whole.value.min(), whole.value.max())
    else:
        assert not np.isfinite(kept.value).all(), "what is not finite is what one looks for"


def test_numbers_say_what_json_cannot():
    assert numbers(np.array([1.5, np.nan, np.inf, -np.inf])) == [1.5, "NaN", "Infinity", "-Infinity"]
    assert numbers(np.array([2.3], np.float32)) == [2.3]


@pytest.fixture(scope="module")
def mesh(served):
    run = served.new_run("mesh", project="zoom")
    started = [
        {
            "event": "rank_started",
            "rank": rank,
            "step": None,
            "time_ns": 1,
            "attrs": {"world_size": 4, "mesh": {"dp": rank // 2, "tp": rank % 2}},
        }
        for rank in range(4)
    ]
    for seq in range(5):
        metrics = {"loss": [1.0, 2.0, 3.0, 4.0], "tokens": 100.0}
        served.send(frame(run, seq, ranks=range(4), boot="mesh", metrics=metrics, events=started if seq == 0 else []))
    served.until(lambda: len(served.get(f"runs/{run}/series", metric="loss")["step"]) == 5)
    served.until(lambda: served.get(f"runs/{run}/attempts")["items"][0]["world_size"] == 4)
    return run


@pytest.mark.parametrize(("by", "expected"), [("dp", {"0": 1.5, "1": 3.5}), ("tp", {"0": 2.0, "1": 3.0}), ("node", {"n1": 2.5})])
def test_ranks_are_grouped_by_their_place(served, mesh, by, expected):
    found = served.get(f"runs/{mesh}/groups", metric="loss", by=by)
    assert {group["group"]: group["value"][-1] for group in found["groups"]} == expected


def test_a_dimension_that_is_not_there_is_said(served, mesh):
    answer = served.http.get(f"/api/v1/runs/{mesh}/groups", params={"metric": "loss", "by": "pp"})
    assert (answer.status_code, answer.json()["field"]) == (404, "by")


def test_runs_stand_on_one_axis(served, mesh):
    by_tokens = served.get("compare", run=[mesh, mesh], metric="loss", align="tokens")
    assert [run["x"] for run in by_tokens["runs"]] == [[400.0, 800.0, 1200.0, 1600.0, 2000.0]] * 2
    assert served.get("compare", run=mesh, metric="loss", align="step")["runs"][0]["x"] == [0, 1, 2, 3, 4]
    assert served.get("compare", run=mesh, metric="loss", align="time")["runs"][0]["x"][0] == 0


def test_zoom_and_rank(served, mesh):
    found = served.get(f"runs/{mesh}/series", metric="loss", rank=3, from_step=1, to_step=3)
    assert (found["step"], found["value"], found["agg"], found["thinned"]) == ([1, 2, 3], [4.0, 4.0, 4.0], None, False)
    assert served.get(f"runs/{mesh}/series", metric="loss", agg="max")["value"] == [4.0] * 5


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [("gzip, zstd", "zstd"), ("gzip", "gzip"), ("zstd;q=0, gzip", "gzip"), ("identity", None), ("zstd;q=0, *;q=0", None), ("*", "zstd")],
)
def test_a_large_answer_is_packed_as_the_client_takes_it(served, mesh, accepted, coding):
    plain = served.http.get("/openapi.json", headers={"Accept-Encoding": "identity"})
    packed = served.http.get("/openapi.json", headers={"Accept-Encoding": accepted})
    assert packed.headers.get("Content-Encoding") == coding and packed.json() == plain.json()
    assert (int(packed.headers["Content-Length"]) < int(plain.headers["Content-Length"])) == (coding is not None)
    assert "Accept-Encoding" in packed.headers["Vary"]


def test_what_the_client_has_already_is_not_sent_again(served):
    run = served.new_run("etag")
    path = f"/api/v1/runs/{run}/series?metric=loss"
    served.send(frame(run, 1, boot=run))
    served.until(lambda: served.http.get(path).json()["step"] == [1])
    first = served.http.get(path)
    etag = first.headers["ETag"]
    assert etag.startswith('W/"') and first.headers["Cache-Control"] == "private, no-cache"
    again = served.http.get(path, headers={"If-None-Match": f'"other", {etag}'})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
    served.send(frame(run, 2, boot=run))
    served.until(lambda: served.http.get(path, headers={"If-None-Match": etag}).status_code == 200)
    assert served.http.get("/api/v1/runs/nope", headers={"If-None-Match": "*"}).status_code == 404
