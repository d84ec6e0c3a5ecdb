"""First heartbeat: a real training loop, a real collector process, a real receiver; what a person gets in the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from collector import Collector
from holter_monitor.demo.processes import free_port, stop_all_that_use
from holter_monitor.demo.receiver import Receiver
from holter_monitor.demo.screen import plain

LOOP = """
import math, random, sys, time
import holter
first, last, spike_at, pause = (int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
noise = random.Random(first)
run = holter.init(project="heart", name="beat")
for step in range(first, last):
    loss = 2 + 2 * math.exp(-step / 100) + noise.gauss(0, 0.02) + (4.0 if spike_at <= step < spike_at + 3 else 0)
    run.step(step, loss=loss, grad_norm=1 + noise.random() / 10, tokens=512)
    time.sleep(pause)
run.finish()
"""


def eventually(look: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The first truthy answer of `look`; what it said last is in the failure."""
    deadline, answer = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        answer = look()
        if answer:
            return answer
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {look}; last answer {answer!r}")


class Watched(Collector):
    """A real `holter serve` on a port of its own, so that it can die and come back where the agents look for it."""

    def __init__(self, folder: Path, slack: str) -> None:
        environment = {"HOLTER_SLACK_WEBHOOK": slack, "HOLTER_ALLOW_PRIVATE_RECEIVERS": "1"}
        self.port = free_port()
        super().__init__(folder / "data", "--port", str(self.port), environment=environment)

    def incidents(self, kind: str) -> list[dict[str, Any]]:
        return self.get("incidents", kind=kind)["items"]

    def steps(self) -> list[int]:
        runs = self.get("runs")["items"]
        return self.get(f"runs/{runs[0]['id']}/series", metric="loss", rank=0, max_points=100_000)["step"] if runs else []


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def collector(tmp_path: Path, receiver: Receiver) -> Iterator[Watched]:
    collector = Watched(tmp_path, receiver.url)
    yield collector
    stop_all_that_use(tmp_path / "agent")
    if hasattr(collector, "process"):
        collector.close()


@pytest.fixture
def loop(tmp_path: Path, collector: Watched) -> Callable[..., subprocess.Popen[bytes]]:
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(LOOP))

    def start(first: int, last: int, *, spike_at: int = -10, pause: float = 0.002) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "HOLTER_URL": f"http://127.0.0.1:{collector.port}", "HOLTER_DIR": str(tmp_path / "agent")}
        words = [sys.executable, str(script), str(first), str(last), str(spike_at), str(pause)]
        return subprocess.Popen(words, env=environment, stderr=(tmp_path / "train.log").open("ab"))

    return start


def spikes(receiver: Receiver) -> list[dict[str, Any]]:
    messages = []
    while not receiver.messages.empty():
        messages.append(receiver.messages.get())
    return [message for message in messages if "spike" in json.dumps(message)]


def test_a_spike_becomes_a_message_that_a_person_can_read(collector, loop, receiver):
    collector.start()
    assert loop(0, 700, spike_at=500).wait(60) == 0
    [incident] = eventually(lambda: collector.incidents("loss_spike"))
    assert incident["onset_step"] == 500
    text = plain(eventually(lambda: spikes(receiver))[0])
    assert "beat" in text
    assert "500" in text
    assert f"/incidents/{incident['id']}" in text
    assert eventually(lambda: len(collector.steps()) == 700)


def test_acknowledging_is_recorded_and_said_once(collector, loop, receiver):
    collector.start()
    loop(0, 700, spike_at=500).wait(60)
    [incident] = eventually(lambda: collector.incidents("loss_spike"))
    answer = collector.http.post(f"/api/v1/incidents/{incident['id']}/acknowledge", json={"actor": "ada"})
    assert answer.is_success, answer.text
    assert "ada" in json.dumps(collector.get(f"incidents/{incident['id']}"))


@pytest.mark.timeout(300)
def test_the_training_does_not_notice_that_the_collector_is_down_and_every_step_arrives_later(collector, loop, receiver):
    training = loop(0, 800, spike_at=600, pause=0.001)
    assert training.wait(30) == 0
    collector.start()
    loop(800, 1000).wait(30)
    assert eventually(lambda: len(collector.steps()) == 1000, 60)
    assert collector.steps() == list(range(1000))
    assert len(eventually(lambda: spikes(receiver))) == 1


@pytest.mark.timeout(300)
def test_a_killed_collector_loses_nothing_and_repeats_no_alert(collector, loop, receiver):
    collector.start()
    training = loop(0, 1500, spike_at=900, pause=0.004)
    eventually(lambda: len(collector.steps()) > 200)
    collector.kill()
    time.sleep(1.0)
    collector.start()
    eventually(lambda: collector.incidents("loss_spike"))
    collector.kill()
    collector.start()
    assert training.wait(60) == 0
    assert eventually(lambda: len(collector.steps()) == 1500, 60)
    assert collector.steps() == list(range(1500))
    assert len(collector.incidents("loss_spike")) == 1
    eventually(lambda: not receiver.messages.empty())
    time.sleep(2.0)
    opened = [message for message in spikes(receiver) if "resolved" not in json.dumps(message).lower()]
    assert len(opened) == 1
