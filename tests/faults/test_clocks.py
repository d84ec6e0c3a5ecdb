"""Clocks that are wrong and clocks that are set: real agents and a real collector under another wall clock. Nothing is refused, lost, doubled or
called a fault."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from collector import Collector
from holter_monitor.demo.processes import stop_all_that_use
from sink import Sink

COMPILER = shutil.which("gcc") or shutil.which("cc")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
LOOP = """
import os, struct, sys, time
import holter
name, last, ill = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
run = holter.init(project="clocks", name=name)
for step in range(last):
    run.step(step, loss=float("nan") if step == ill else 2 + step % 7 / 100, tokens=512)
    if step == last // 2 and len(sys.argv) > 4:
        with open(os.environ["WALL_CLOCK"], "r+b") as file:
            file.write(struct.pack("q", int(sys.argv[4])))
    time.sleep(0.01)
run.finish()
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("clock") / "wall_clock.so"
    source = Path(__file__).with_name("wall_clock.c")
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", made, source], check=True)
    return made


class Clock:
    """The wall clock of those that start with its `environment`."""

    def __init__(self, library: Path, file: Path, seconds: int) -> None:
        self.file = file
        file.write_bytes(struct.pack("q", seconds))
        self.environment = {"LD_PRELOAD": str(library), "WALL_CLOCK": str(file)}

    def set(self, seconds: int) -> None:
        with self.file.open("r+b") as file:  # in place: the processes have it mapped
            file.write(struct.pack("q", seconds))


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as it:
        yield it


Train = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def train(tmp_path: Path) -> Iterator[Train]:
    """A training process with a node agent of its own, both under the same clock."""
    folders: list[Path] = []

    def start(collector: Collector, name: str, *words: object, clock: dict[str, str]) -> subprocess.Popen[bytes]:
        folders.append(tmp_path / f"agent-{name}")
        environment = os.environ | clock | {"HOLTER_URL": collector.url, "HOLTER_DIR": str(folders[-1]), "HOLTER_NODE": name}
        return subprocess.Popen([sys.executable, "-c", LOOP, name, *map(str, words)], env=environment)

    yield start
    for folder in folders:
        stop_all_that_use(folder)


def told(sink: Sink) -> dict[str, list[tuple[str, str]]]:
    """Run name -> kind and transition of its messages."""
    found: dict[str, list[tuple[str, str]]] = {}
    for call in sink.calls:
        found.setdefault(call.json["run_name"], []).append((call.json["kind"], call.json["transition"]))
    return found


def served(tmp_path: Path, sink: Sink, **clock: str) -> Collector:
    environment = {"HOLTER_WEBHOOK_URL": sink.url, "HOLTER_ALLOW_PRIVATE_RECEIVERS": "1"} | clock
    return Collector(tmp_path / "data", environment=environment).start()


def run_of(collector: Collector, name: str) -> Any:
    return next((run for run in collector.get("runs")["items"] if run["name"] == name), None)


def steps_of(collector: Collector, name: str) -> list[int]:
    run = run_of(collector, name)
    return [] if run is None else collector.get(f"runs/{run['id']}/series", metric="loss", rank=0, max_points=10_000)["step"]


HOUR = 3600


def test_an_agent_whose_clock_is_wrong_is_heard_like_any_other(tmp_path: Path, library: Path, sink: Sink, train: Train) -> None:
    """Hours behind, hours ahead, an empty clock battery, the next century: nothing refused, the skew is known, the alerts are the same."""
    now = int(time.time())
    offsets = {"right": 0, "behind": -3 * HOUR, "ahead": 3 * HOUR, "battery": 86_400 - now, "century": 4_296_153_600 - now}
    clocks = {name: Clock(library, tmp_path / f"clock-{name}", offset) for name, offset in offsets.items()}
    collector = served(tmp_path, sink)
    try:
        loops = [train(collector, name, 120, 60, clock=clock.environment) for name, clock in clocks.items()]
        assert [loop.wait(60) for loop in loops] == [0] * len(loops)
        for name, offset in offsets.items():
            collector.until(lambda name=name: len(steps_of(collector, name)) == 120)
            (agent,) = collector.get(f"runs/{run_of(collector, name)['id']}/agents")["items"]
            assert agent["skew_seconds"] == pytest.approx(offset, abs=1.0)
        collector.until(lambda: set(told(sink)) == set(offsets))
        alerts = told(sink)
        assert alerts["right"] and all(alerts[name] == alerts["right"] for name in offsets)
    finally:
        collector.close()


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_an_agents_clock_that_is_set_makes_no_fault(jump: int, tmp_path: Path, library: Path, sink: Sink, train: Train) -> None:
    """Pace comes from the monotonic clock: an hour that never was is neither a stall nor lost time, nor does it count as wall time."""
    clock = Clock(library, tmp_path / "clock", 0)
    collector = served(tmp_path, sink)
    try:
        loop = train(collector, "set", 400, -1, jump, clock=clock.environment)
        assert loop.wait(60) == 0
        collector.until(lambda: len(steps_of(collector, "set")) == 400)
        run = run_of(collector, "set")["id"]
        collector.until(lambda: run_of(collector, "set")["state"] == "finished")
        said = [(incident["kind"], incident["cost"] or 0.0) for incident in collector.get("incidents", run=run)["items"]]
        # Other tests on these cores may really slow the loop, by seconds; the hour would be an hour, or a hang.
        assert [
            each for each in said if each[0] not in ("throughput_drop", "throughput_stalls", "throughput_decline") or each[1] > 30.0
        ] == []
        spent = collector.get(f"runs/{run}/goodput")
        causes = [
            seconds for name, seconds in spent.items() if name.endswith("_seconds") and name != "wall_seconds" and "between" not in name
        ]
        assert 4.0 < spent["wall_seconds"] < HOUR / 4 and spent["productive_seconds"] > 2.0, spent
        assert sum(seconds for seconds in causes if seconds is not None) == pytest.approx(spent["wall_seconds"], abs=0.01)
    finally:
        collector.close()


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_collectors_clock_that_is_set_misses_and_doubles_nothing(
    jump: int, tmp_path: Path, library: Path, sink: Sink, train: Train
) -> None:
    clock = Clock(library, tmp_path / "clock", 0)
    collector = served(tmp_path, sink, **clock.environment)
    try:
        loops = [train(collector, name, 300, ill, clock={}) for name, ill in (("before", 20), ("after", 250))]
        collector.until(lambda: "before" in told(sink))
        clock.set(jump)
        assert [loop.wait(60) for loop in loops] == [0, 0]
        collector.until(lambda: "after" in told(sink))
        collector.until(lambda: len(steps_of(collector, "after")) == 300)
        for name in ("before", "after"):
            triggers = [kind for kind, transition in told(sink)[name] if transition == "trigger"]
            assert triggers == ["non_finite"]
    finally:
        collector.close()
