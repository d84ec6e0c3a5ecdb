"""The way of a frame: durable before it is acknowledged, once however often it comes, NaN and absent apart to the last answer."""

import pytest
import zstandard
from collector import frame
from holter.frame import encode
from holter.node.envelope import hollow, stamp


def test_a_frame_is_acknowledged_and_found_again(served):
    run = served.new_run("found")
    answer = served.send(frame(run, 7, ranks=(0, 1), metrics={"loss": [1.5, 2.5]}))
    assert (answer.status_code, answer.json()) == (200, {"ack": 7})
    found = served.until(lambda: served.get(f"runs/{run}/ranks", metric="loss")["rank"] and served.get(f"runs/{run}/ranks", metric="loss"))
    assert (found["step"], found["rank"], found["value"], found["node"]) == (7, [0, 1], [1.5, 2.5], ["n1", "n1"])


def test_a_repeat_is_acknowledged_and_not_stored_again(served):
    run = served.new_run("repeat")
    body = encode(frame(run, 1, boot="repeat"))
    assert [served.send(body).json() for _ in range(3)] == [{"ack": 1}] * 3
    served.send(frame(run, 2, boot="repeat"))
    served.until(lambda: served.get(f"runs/{run}/series", metric="loss", agg="count")["step"] == [1, 2])
    assert served.get(f"runs/{run}/series", metric="loss", agg="count")["value"] == [1, 1]


def test_the_same_number_with_other_bytes_is_a_conflict(served):
    run = served.new_run("conflict")
    served.send(frame(run, 1, boot="conflict"))
    answer = served.send(frame(run, 1, boot="conflict", metrics={"loss": 9.0}))
    assert answer.status_code == 409
    assert "identity" in answer.json()["remedy"]


EVENT = {"event": "mark", "rank": 0, "step": 1, "time_ns": 5, "attrs": {"at": float("nan")}}


@pytest.mark.parametrize("content", [{"metrics": {"loss": [1.0, None]}, "ranks": (0, 1)}, {"events": [EVENT]}], ids=["points", "events"])
def test_what_an_agent_sends_again_with_another_clock_is_a_repeat(served, content):
    """The shipper stamps a frame at each try; until it was trimmed, a frame whose acknowledgement was lost was refused and held up all behind it."""
    run = served.new_run("stamped")
    body = encode(frame(run, 1, boot=f"stamped {len(content)}", **content))
    assert [served.send(stamp(body, run)).json() for _ in range(3)] == [{"ack": 1}] * 3


@pytest.mark.parametrize("is_first", [True, False])
def test_a_declaration_and_the_frame_whose_place_it_took_are_one(served, is_first):
    run = served.new_run("hollow")
    whole = encode(frame(run, 1, boot=f"hollow {is_first}"))
    declaration, _ = hollow(whole, "spool_full")
    for body in (declaration, whole) if is_first else (whole, declaration):
        assert served.send(body).json() == {"ack": 1}


def test_nan_infinite_and_absent_stay_apart(served):
    run = served.new_run("nan")
    values = [float("nan"), float("inf"), float("-inf"), None, 1.0]
    served.send(frame(run, 1, boot="nan", ranks=range(5), metrics={"loss": values}))
    found = served.until(
        lambda: served.get(f"runs/{run}/ranks", metric="loss", step=1)["rank"] and served.get(f"runs/{run}/ranks", metric="loss")
    )
    assert dict(zip(found["rank"], found["value"], strict=True)) == {0: "NaN", 1: "Infinity", 2: "-Infinity", 4: 1.0}


def test_a_compressed_frame_is_taken(served):
    run = served.new_run("zstd")
    body = zstandard.compress(encode(frame(run, 1, boot="zstd")))
    assert served.send(body, **{"Content-Encoding": "zstd"}).json() == {"ack": 1}


def test_names_that_differ_in_case_are_two_metrics(served):
    run = served.new_run("case")
    served.send(frame(run, 1, boot="case", metrics={"loss": 1.0, "Loss": 2.0, 'x"; DROP TABLE runs; --': 3.0}))
    served.until(lambda: len(served.get(f"runs/{run}/metrics")["items"]) == 3)
    assert [served.get(f"runs/{run}/series", metric=name)["value"] for name in ("loss", "Loss", 'x"; DROP TABLE runs; --')] == [
        [1],
        [2],
        [3],
    ]


def test_json_points_go_the_same_way(served):
    run = served.new_run("json")
    points = [{"step": 1, "rank": 0, "loss": "NaN"}, {"step": 1, "rank": 1, "loss": None, "lr": 0.1}, {"event": "checkpoint", "step": 1}]
    answer = served.http.post(f"/api/v1/runs/{run}/points", json=points, headers={"Idempotency-Key": "k"})
    assert answer.json() == {"rows": 2, "events": 1, "repeated": False}
    again = served.http.post(f"/api/v1/runs/{run}/points", json=points, headers={"Idempotency-Key": "k"})
    assert again.json()["repeated"]
    served.until(lambda: served.get(f"runs/{run}/metrics")["items"] == ["loss", "lr"])
    assert served.get(f"runs/{run}/ranks", metric="loss")["value"] == ["NaN"]
    served.until(lambda: [event["event"] for event in served.get(f"runs/{run}/events")["items"]] == ["checkpoint"])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "body"),
        (b'[{"step": 1, "loss": NaN}]', "body"),
        (b'[{"step": 1, "loss": 1e999}]', "body"),
        (b'[{"loss": 1}]', "[0].step"),
        (b'[{"step": 1.5, "loss": 1}]', "[0].step"),
        (b'[{"step": 1, "loss": "nan"}]', "[0].loss"),
        (b'[{"step": 1, "loss": true}]', "[0].loss"),
        (b'[{"step": 99999999999999999999, "loss": 1}]', "[0].step"),
        (b'[{"step": 1, "rank": -2, "loss": 1}]', "[0].rank"),
        (b'[{"step": 1, "": 1}]', "name"),
        (b'[{"event": 7}]', "[0].event"),
        (b"[" * 50_000, "body"),
        (b"\xff\xfe", "body"),
    ],
)
def test_points_that_do_not_fit_are_refused_by_name(served, body, field):
    run = served.new_run("bad")
    answer = served.http.post(f"/api/v1/runs/{run}/points", content=body)
    assert answer.status_code == 400, answer.text
    problem = answer.json()
    assert problem["field"] == field
    assert problem["remedy"]


def test_frames_that_do_not_fit_are_refused_by_name(served):
    assert served.send(b"HLT1").json()["field"] == "body"
    assert served.send(frame("nobody", 1)).status_code == 409
    assert served.http.post("/api/v1/frames", content=b"x", headers={"Content-Type": "text/plain"}).status_code == 415
    assert served.send(b"x", **{"Content-Encoding": "br"}).status_code == 415
    assert served.http.get("/api/v1/frames").status_code == 405


def test_what_was_acknowledged_survives_sigkill(collector):
    run = collector.new_run()
    for seq in range(20):
        assert collector.send(frame(run, seq)).status_code == 200
    collector.kill()
    collector.start()
    collector.until(lambda: len(collector.get(f"runs/{run}/series", metric="loss")["step"]) == 20)
    assert collector.get(f"runs/{run}")["last_step"] == 19
    assert collector.stop() == 0


def test_a_second_collector_on_the_same_data_is_refused(collector):
    from collector import Collector

    second = Collector(collector.data)
    with pytest.raises(AssertionError, match="another collector runs"):
        second.start()
    assert second.process.wait(10) == 2
    second.close()


def test_an_operators_advice_rides_in_the_acknowledgement(served):
    run = served.new_run("advised")
    assert served.send(frame(run, 1, boot="advised")).json() == {"ack": 1}
    advice = {"stop": True, "reason": "the loss diverged"}
    assert served.http.put(f"/api/v1/runs/{run}/advice", json=advice).json()["advice"] == advice
    assert served.send(frame(run, 2, boot="advised")).json() == {"ack": 2, "advice": advice}
    served.http.put(f"/api/v1/runs/{run}/advice", json={})
    assert served.send(frame(run, 3, boot="advised")).json() == {"ack": 3}
