"""What there is to resume from, out of what the agents told; and that a run with nothing told has nothing."""

import json
import os
import subprocess
import sys
import time

import pytest
from collector import collector as running_collector
from collector import frame
from holter_monitor.checkpoint_stock import stock
from holter_monitor.stream.checkpoint_news import news


def told(names, *, at=0.0, free=1000, copies=(), **attrs):
    items = [[f"step_{step}", step, 100, "complete", 3600.0 * step, "verified" if step in copies else "absent"] for step in names]
    event = {"event": "checkpoint_files", "rank": 0, "step": None, "time_ns": int(at * 1e9)}
    return news({**event, "attrs": {"folder": "/ckpt", "copy": "s3://b", "free": free, "items": items} | attrs})


def test_retention_is_seen_and_names_what_goes_next():
    seen = [told(range(max(1, last - 2), last + 1), copies=(1, 2)) for last in range(1, 7)]
    found = stock(seen)
    assert (found.newest.name, found.keep, found.expiring, found.interval_seconds) == ("step_6", 3, ["step_4"], 3600.0)
    assert found.newest_copied is None and found.room == 10 and found.full_seconds is None


def test_without_retention_the_room_runs_out_at_a_time_that_can_be_told():
    found = stock([told(range(1, last + 1), free=1000 - 100 * last, copies=(3,)) for last in range(1, 6)])
    assert (found.keep, found.expiring, found.room, found.full_seconds) == (
        None,
        [],
        5,
        5 * 3600.0,
    ) and found.newest_copied.name == "step_3"


def test_a_place_that_went_silent_shows_what_it_last_held():
    found = stock([told([1, 2]), told([], problem="timed out")])
    assert found.newest.name == "step_2" and found.problem == "timed out"
    assert stock([]) is None and stock([told([])]).newest is None


@pytest.mark.parametrize("items", [[["a"]], [["a", "1", 2, "complete"]], [None], "x", [["a", 1, 2, "complete", float("inf"), None]]])
def test_nonsense_in_an_event_is_no_checkpoint_or_one_without_a_time(items):
    read = news({"event": "checkpoint_files", "rank": 0, "step": None, "time_ns": 0, "attrs": {"folder": "/c", "items": items}})
    assert read is None or all(entry.written == 0.0 for entry in read.entries)


TRAIN = """
import sys, holter
run = holter.init(project="p", name="saved", url=sys.argv[1], directory=sys.argv[2])
for step in range(5):
    run.step(step, loss=2.0)
sys.stdin.read()
run.finish()
"""


def test_from_the_training_s_environment_to_the_answer(tmp_path):
    """A real rank, node agent and collector. The first look sees each checkpoint as one that may still be written."""
    folder = tmp_path / "ckpt"
    (folder / "checkpoint-40").mkdir(parents=True)
    (folder / "checkpoint-40" / "w.bin").write_bytes(b"x" * 7)
    with running_collector(tmp_path / "data") as collector:
        environment = os.environ | {"HOLTER_CHECKPOINTS": str(folder), "HOLTER_CHECKPOINT_COPY": f"file://u:p@{tmp_path}/copy"}
        command = [sys.executable, "-c", TRAIN, collector.url, str(tmp_path / "home")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as train:
            try:
                run = collector.until(lambda: collector.get("runs", name="saved")["items"])[0]["id"]
                found = collector.until(lambda: (answer := collector.get(f"runs/{run}/checkpoints"))["folder"] and answer)
            finally:
                train.communicate(timeout=60)
        assert found["folder"] == str(folder) and found["copy_folder"] == f"file://{tmp_path}/copy"
        assert [(item["name"], item["state"], item["bytes"]) for item in found["items"]] == [("checkpoint-40", "writing", 7)]
        other = collector.new_run("other")
        collector.send(frame(other, 1))
        empty = collector.get(f"runs/{other}/checkpoints")
        assert empty["folder"] is None and empty["items"] == []
        items = [["step_1", 1, 5, "complete", time.time(), ""], ["step_2", 2, 5, "it is empty", 3e20, ""]]
        attrs = {"folder": "/elsewhere", "free": 12, "items": json.loads(json.dumps(items))}
        event = {"event": "checkpoint_files", "rank": 0, "step": None, "time_ns": time.time_ns(), "attrs": attrs}
        collector.send(frame(other, 2, events=[event]))
        found = collector.until(lambda: (answer := collector.get(f"runs/{other}/checkpoints"))["folder"] and answer)
        assert (found["newest"], found["room"], found["items"][1]["written"]) == ("step_1", 2, None)
