"""`holter agent`, the node agent as a service, and what it does besides steps."""

import json
import os
import subprocess
import sys
import time

import pytest
from holter.node.agent import NodeAgent
from holter.recorder import Recorder
from holter.ring import Ring, State
from holter.settings import Settings


@pytest.fixture
def service(collector, tmp_path):
    started = []

    def start():
        command = [sys.executable, "-m", "holter.node", "--url", collector.url, "--directory", str(tmp_path)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_service_serves_trainings_that_then_start_none_of_their_own(collector, service, train):
    agent = service()
    time.sleep(1.5)
    for _ in range(2):
        train(collector.url, steps=5, tail="run.finish()").communicate(timeout=60)
    collector.wait_for(lambda collector: sum(event["event"] == "rank_finished" for event in collector.events) == 2)
    assert agent.poll() is None
    agent.terminate()
    assert agent.wait(timeout=30) == 0
    assert "ended, pid" in agent.stderr.read()
    assert len({frame.node for frame in collector.frames}) == 1


def test_a_second_service_says_so_and_ends(service):
    service()
    time.sleep(1.5)
    second = service()
    assert second.wait(timeout=30) == 1
    assert "another agent serves" in second.stderr.read()


def test_of_runs_that_have_ended_a_service_keeps_nothing(collector, tmp_path, monkeypatch):
    monkeypatch.setattr("holter.node.agent.LINGER_SECONDS", 0.5)
    settings = Settings(url=collector.url, directory=str(tmp_path))
    rings = settings.ring_folders()[0]
    rings.mkdir(parents=True)
    agent = NodeAgent(settings, rings, is_service=True)
    agent._shipper.start()
    for name in ("one", "two", "one"):
        meta = {"project": "p", "name": name, "node": "here", "rank": 0}
        recorder = Recorder(Ring.create(rings, "r", meta, (os.getpid(), 0), time.monotonic_ns()), 0)
        recorder.step(0, loss=1.0)
        recorder.close(State.FINISHED)
        agent._look()
        assert agent._runs
        until = time.monotonic() + 60
        while (agent._runs or agent._destinations._open) and time.monotonic() < until:
            time.sleep(0.05)
            agent._look()
        assert not (agent._runs or agent._witnesses or agent._destinations._open or list(settings.spool_folder().glob("*/")))
    agent._shipper.stop()
    assert len(collector.points("loss")) == 3


def test_an_agent_that_is_told_to_end_says_so_and_the_next_goes_on(collector, service, train):
    agent = service()
    time.sleep(1.5)
    process = train(collector.url, steps=150, pause=0.05, tail="run.finish()")
    collector.wait_for(lambda collector: len(collector.points("loss")) > 10)
    agent.terminate()
    agent.wait(timeout=30)
    process.communicate(timeout=60)
    collector.wait_for_event("rank_finished", seconds=30)
    assert collector.wait_for_event("agent_stopped")["attrs"]["ranks"] == [0]
    assert [step for step, _ in collector.points("loss")] == list(range(150))


def test_the_process_and_the_host_are_sampled_with_the_steps(collector, train):
    process = train(
        collector.url, steps=40, pause=0.05, tail="import gc; gc.collect(); time.sleep(6); run.step(40, loss=0.0); run.finish()"
    )
    process.communicate(timeout=60)
    collector.wait_for_event("rank_finished")
    assert collector.points("process_memory_rss_bytes", rank=0) and collector.points("host_memory_total_bytes", rank=-1)
    assert max(step for step, _ in collector.points("host_memory_total_bytes", rank=-1)) >= 39, "the node's rows say where the run was"
    assert all(value >= 0 for _, value in collector.points("process_gc_pause_seconds", rank=0))


def test_advice_reaches_the_training(collector, train):
    collector.advice = {"stop": True, "reason": "the loss diverged"}
    tail = "\nwhile not run.advice.stop: time.sleep(0.02); run.step(steps, loss=0.0)\nprint(run.advice.reason)"
    out, _ = train(collector.url, steps=5, tail=tail).communicate(timeout=60)
    assert out.splitlines()[-1] == "the loss diverged"


def test_a_node_that_went_down_under_the_agent_is_told_of_once(collector, service, train, tmp_path):
    """Case 24: what a power loss took cannot be counted, so the next agent on the node says that there was one, in the attempt it hit."""
    agent = service()
    time.sleep(1.5)
    process = train(collector.url, steps=500, pause=0.05)
    collector.wait_for(lambda collector: len(collector.points("loss")) > 5)
    agent.kill()
    process.kill()
    (label,) = tmp_path.rglob("life.json")
    life = json.loads(label.read_text())
    label.write_text(json.dumps({**life, "kernel": "another boot of this machine"}))
    for ring in tmp_path.rglob("*.ring"):
        ring.unlink()
    after = service()
    event = collector.wait_for_event("node_restarted")
    assert event["attrs"]["boot"] == life["boot"]
    assert {frame.attempt for frame in collector.frames} == {life["attempt"]}
    assert not label.exists()
    after.kill()


def test_an_agent_that_was_killed_on_a_node_that_stayed_up_tells_of_no_restart(collector, service, train, tmp_path):
    agent = service()
    time.sleep(1.5)
    process = train(collector.url, steps=60, pause=0.05, tail="run.finish()")
    collector.wait_for(lambda collector: len(collector.points("loss")) > 5)
    agent.kill()
    service()
    process.communicate(timeout=60)
    collector.wait_for_event("rank_finished", seconds=30)
    assert "node_restarted" not in {event["event"] for event in collector.events}
    assert list(tmp_path.rglob("life.json")) == [], "the run is over: a power loss could take nothing of it any more"
