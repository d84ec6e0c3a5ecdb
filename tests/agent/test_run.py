"""From `run.step` to the collector, through the real ring, the real node agent and a real HTTP server."""

import math
import os
import signal
import time
from pathlib import Path

import holter
import numpy as np
import psutil
import pytest
from holter.node.agent import NodeAgent
from holter.recorder import Recorder
from holter.ring import SCHEMAS_OFFSET, Ring
from holter.settings import Settings
from holter.testing import Reply


def finished(process):
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def test_every_step_arrives_once_and_in_order(collector, train):
    finished(train(collector.url, steps=50, tail="run.finish()"))
    collector.wait_for_event("rank_finished")
    assert [step for step, _ in collector.points("loss")] == list(range(50))
    assert collector.points("loss")[9] == (9, 0.1)
    assert collector.repeats == 0


def test_the_pace_is_derived(collector, train):
    finished(train(collector.url, steps=10, pause=0.02, tail="run.finish()"))
    collector.wait_for_event("rank_finished")
    times = dict(collector.points("step_time_seconds"))
    assert set(times) == set(range(1, 10)) and all(value >= 0.02 for value in times.values())
    assert dict(collector.points("tokens_per_second"))[5] == pytest.approx(100 / times[5])


def test_frames_wait_for_a_collector_that_is_down(collector, train):
    collector.stop()
    assert "trained" in finished(train(collector.url, steps=30, tail="run.finish()"))
    collector.start()
    collector.wait_for_event("rank_finished", seconds=40)
    assert [step for step, _ in collector.points("loss")] == list(range(30))


def test_the_end_of_a_killed_rank_is_reported_with_its_last_steps(collector, train):
    process = train(collector.url, steps=10, tail="import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    process.wait(timeout=60)
    assert process.returncode == -signal.SIGKILL
    event = collector.wait_for_event("rank_lost")
    assert event["step"] == 9
    assert [step for step, _ in collector.points("loss")] == list(range(10))


def test_an_uncaught_exception_is_reported(collector, train):
    process = train(collector.url, steps=3, tail="raise ValueError('the loss is odd')")
    process.wait(timeout=60)
    assert process.returncode == 1
    event = collector.wait_for_event("rank_failed")
    assert event["attrs"] == {"type": "ValueError", "message": "the loss is odd", "last_steps": [0, 1, 2]}


@pytest.mark.parametrize("status", [429, 503, 500, 408])
def test_a_refusal_for_now_is_repeated(collector, train, status):
    collector.script["/api/v1/frames"] += [Reply(status, {"Retry-After": "1"}), Reply(status)]
    finished(train(collector.url, steps=5, tail="run.finish()"))
    collector.wait_for_event("rank_finished", seconds=30)
    assert [step for step, _ in collector.points("loss")] == list(range(5))


def test_an_answer_that_was_lost_stores_nothing_twice(collector, train):
    collector.script["/api/v1/frames"] += [Reply(502, is_stored=True), Reply(200, body=b"<html>", is_stored=True)]
    finished(train(collector.url, steps=5, tail="run.finish()"))
    collector.wait_for_event("rank_finished")
    assert collector.repeats == 2
    assert [step for step, _ in collector.points("loss")] == list(range(5))


def test_an_unknown_run_is_created_again(collector, train):
    collector.script["/api/v1/frames"].append(Reply(409))
    finished(train(collector.url, steps=5, tail="run.finish()"))
    collector.wait_for_event("rank_finished")
    assert [path for _, path, _ in collector.requests].count("/api/v1/runs") == 2


def test_a_frame_that_is_too_large_goes_in_parts(collector, train):
    collector.max_body_bytes = 1500
    finished(train(collector.url, steps=100, pause=0.001, tail="run.finish()"))
    collector.wait_for_event("rank_finished")
    assert sorted(step for step, _ in collector.points("loss")) == list(range(100))


@pytest.fixture
def silent(monkeypatch):
    monkeypatch.setenv("HOLTER_DISABLED", "1")
    return holter.init()


class Hostile:
    def __float__(self):
        raise RuntimeError("no")

    def __repr__(self):
        raise RuntimeError("no")

    __str__ = __repr__


HOSTILE = [None, "text", b"bytes", 10**400, -(10**400), math.nan, math.inf, Hostile(), [], {}, np.float32(1), np.zeros(3), 1j, object]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: type(value).__name__)
def test_step_takes_anything(tmp_path, value):
    run = holter.init(directory=str(tmp_path), url="http://127.0.0.1:9", environment={})
    run.step(0, loss=value)
    run.step(value, loss=1.0)
    run.step()
    run.step(1, 2, 3, loss=value, other=1.0)
    run.event("word", value=value)
    run.finish()
    run.step(2, loss=1.0)


def test_switched_off_it_takes_anything_and_leaves_nothing(silent):
    silent.step(0, loss=object())
    silent.event("x")
    with silent.section("forward"), silent.checkpoint("path", 1):
        pass
    assert list(silent.batches([1, 2])) == [1, 2]
    assert silent.advice == silent.agreed_advice() == holter.Advice()
    silent.finish()


def agents(folder):
    """The node agents whose lock is in `folder`."""
    return [process for process in psutil.process_iter() if _has_open(process, f"{folder}/", "agent.log")]


def _has_open(process, folder, name):
    try:
        links = [os.readlink(link) for link in Path(f"/proc/{process.pid}/fd").iterdir()]
    except OSError:
        return False
    return any(link.startswith(folder) and link.endswith(name) for link in links)


def test_an_agent_that_is_told_to_end_ends_although_a_rank_lives(collector, train, tmp_path):
    train(collector.url, steps=6000, pause=0.02)  # ended with the test
    collector.wait_for_event("rank_started")
    [agent] = agents(tmp_path)
    agent.terminate()
    agent.wait(20)


def test_a_torn_ring_costs_itself_and_no_other(tmp_path):
    """A schema line overwritten with noise: that rank is set aside and counted, its neighbour is read on."""
    settings = Settings(url="http://127.0.0.1:9", directory=str(tmp_path))
    rings = settings.ring_folders()[0]
    recorders = []
    for rank in (0, 1):
        meta = {"project": "p", "name": "n", "attempt": "a", "rank": rank, "node": "n"}
        recorders.append(Recorder(Ring.create(rings, f"r{rank}", meta, (os.getpid(), 0), time.monotonic_ns()), rank))
        recorders[rank].step(0, loss=1.0)
    recorders[1]._ring.buffer[SCHEMAS_OFFSET : SCHEMAS_OFFSET + 4] = b"\xff" * 4
    agent = NodeAgent(settings, rings)
    agent._look()
    recorders[0].step(1, loss=2.0)
    agent._look()
    [run] = agent._runs.values()
    assert [rank.ring.rank for rank in run.ranks] == [0] and run.ranks[0].pace.step == 1
    assert [path.name for path in rings.glob("*.strange")] == ["r1.strange"]
    for recorder in recorders:
        recorder.silence()
