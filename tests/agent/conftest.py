"""What the tests of the agent share: a collector on loopback, a folder, and a real training process."""

import os
import subprocess
import sys

import pytest
from holter.testing import CollectorStandIn

TRAINING = """
import sys, time, holter
url, folder, steps, pause = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
run = holter.init(project="p", name="n", url=url, directory=folder)
for step in range(steps):
    time.sleep(pause)
    run.step(step, loss=1.0 / (step + 1), tokens=100)
print("trained", flush=True)
"""


@pytest.fixture
def collector():
    with CollectorStandIn().serving() as collector:
        yield collector


@pytest.fixture
def train(tmp_path):
    """Start a training in a process of its own; `train(code, *args)` gives the `Popen`."""
    started = []

    def start(url, *, steps=20, pause=0.01, tail="", code=TRAINING, env=()):
        arguments = [sys.executable, "-c", code + tail, url, str(tmp_path), str(steps), str(pause)]
        process = subprocess.Popen(arguments, env={**os.environ, **dict(env)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
