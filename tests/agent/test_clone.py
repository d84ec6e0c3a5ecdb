"""Case 35: a node that was cloned with frames in its spool, and a folder that two nodes share."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from collector import collector as served
from holter.frame import decode
from holter.node.records import scan
from holter.recorder import Recorder
from holter.ring import Ring, State
from holter.settings import Settings


class Node:
    """A rank's ring and a node agent on `folder`."""

    def __init__(self, url, folder, rank):
        self.settings = Settings(url=url, directory=str(folder))
        meta = {"project": "p", "name": "n", "node": "cloned", "attempt": str(rank), "rank": rank}
        self.ring = Ring.create(self.settings.ring_folders()[0], str(rank), meta, (os.getpid(), 0), time.monotonic_ns())
        self.recorder = Recorder(self.ring, rank)
        command = [sys.executable, "-m", "holter.node", "--url", url, "--directory", str(folder)]
        self.agent = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def write(self, first, last):
        for step in range(first, last):
            self.recorder.step(step, loss=float(step))

    def spooled(self):
        """Steps that lie in the spool."""
        segments = Path(self.settings.directory).glob("*/spool/*/*/*.seg")
        return {step for path in segments for record in scan(path.read_bytes()) for step in decode(record.payload).step.tolist()}

    def kill(self):
        self.agent.kill()
        self.agent.wait()


def until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def nodes():
    """Start agents; they are ended with the test."""
    started = []

    def start(*words):
        started.append(Node(*words))
        return started[-1]

    yield start
    for node in started:
        node.kill()


def test_a_cloned_node_ships_its_spool_from_both_copies_and_it_is_stored_once(tmp_path, nodes):
    """A real collector: what both say of the old life is stored once, what each says of its own is stored as well."""
    with served(tmp_path / "data") as running:
        running.kill()
        first = nodes(running.url, tmp_path / "one", 0)
        first.write(0, 100)
        until(lambda: first.spooled() >= set(range(100)))
        first.kill()
        first.ring.path.unlink()
        running.arguments = ("--port", running.url.rpartition(":")[2])
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        running.start()
        for rank, name in ((1, "one"), (2, "two")):
            node = nodes(running.url, tmp_path / name, rank)
            node.write(50 + 50 * rank, 100 + 50 * rank)
            node.recorder.close(State.FINISHED)
        run = running.until(lambda: running.get("runs")["items"])[0]["id"]
        for rank, wanted in enumerate((range(100), range(100, 150), range(150, 200))):
            running.until(lambda rank=rank, wanted=wanted: len(steps(running, run, rank)) >= len(wanted))
            assert steps(running, run, rank) == list(wanted)
        until(lambda: not first.spooled())
        frames = {
            line.split()[0]: float(line.split()[1])
            for line in running.http.get("/metrics").text.splitlines()
            if "holter_frames_total{" in line
        }
        assert frames['holter_frames_total{outcome="repeated"}'] > 0 and not frames.get('holter_frames_total{outcome="rejected"}')
        assert running.stop() == 0


def steps(running, run, rank):
    return running.get(f"runs/{run}/series", metric="loss", rank=rank, max_points=1000)["step"]
