"""A run falls silent: killed, stopped, cut off, its machine gone. Somebody is told within 90 s, and told which of them it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from collector import Collector
from holter_monitor.demo.processes import stop_all_that_use, users_of
from sink import Sink

LOOP = """
import sys, time
import holter
run = holter.init(project="silent", name=sys.argv[1])
for step in range(10**6):
    run.step(step, loss=2 + step % 7 / 100)
    time.sleep(0.05)
"""
LIMIT = 90.0
EXPECTED = {"killed": {"rank_lost"}, "stopped": {"hang"}, "cut_off": {"agent_silent"}, "gone": {"agent_silent"}}


class Patient:
    """A rank and its node agent, each of which can fall ill."""

    def __init__(self, collector: Collector, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        environment = os.environ | {"HOLTER_URL": collector.url, "HOLTER_DIR": str(folder), "HOLTER_NODE": name}
        self.rank = subprocess.Popen([sys.executable, "-c", LOOP, name], env=environment)

    @property
    def agent(self) -> int:
        return next(process.pid for process in users_of(self.folder) if process.pid != self.rank.pid)

    def killed(self) -> None:
        os.kill(self.rank.pid, signal.SIGKILL)

    def stopped(self) -> None:
        os.kill(self.rank.pid, signal.SIGSTOP)

    def cut_off(self) -> None:
        """What the collector sees of a network that is cut: nothing, while the training goes on."""
        os.kill(self.agent, signal.SIGSTOP)

    def gone(self) -> None:
        """What it sees of a machine that is gone."""
        os.kill(self.agent, signal.SIGKILL)
        os.kill(self.rank.pid, signal.SIGKILL)

    def end(self) -> None:
        for process in users_of(self.folder):
            process.resume()
        self.rank.kill()
        self.rank.wait()
        stop_all_that_use(self.folder)


@pytest.fixture
def admit(tmp_path: Path) -> Iterator[Callable[[Collector, str], Patient]]:
    patients: list[Patient] = []

    def start(collector: Collector, name: str) -> Patient:
        patients.append(Patient(collector, name, tmp_path / f"agent-{name}"))
        return patients[-1]

    yield start
    for patient in patients:
        patient.end()


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_who_falls_silent_is_told_of_within_the_limit_and_by_its_name(tmp_path: Path, admit: Callable[[Collector, str], Patient]) -> None:
    """Two of each, and two that stay well."""
    with Sink() as sink:
        collector = Collector(
            tmp_path / "data", environment={"HOLTER_WEBHOOK_URL": sink.url, "HOLTER_ALLOW_PRIVATE_RECEIVERS": "1"}
        ).start()
        try:
            patients = [(fate, admit(collector, f"{fate}{number}")) for number in range(2) for fate in [*EXPECTED, "well"]]
            collector.until(lambda: sum((run["last_step"] or 0) > 200 for run in collector.get("runs")["items"]) == len(patients))
            fell = time.time()
            for fate, patient in patients:
                if fate != "well":
                    getattr(patient, fate)()
            wanted = {patient.name for fate, patient in patients if fate != "well"}
            collector.until(lambda: wanted <= {call.json["run_name"] for call in sink.calls}, LIMIT + 30)
            first = {}
            for call in reversed(sink.calls):
                first[call.json["run_name"]] = (call.json["kind"], call.at)
            for fate, patient in patients:
                if fate != "well":
                    kind, at = first[patient.name]
                    print(f"{patient.name}: {kind} after {at - fell:.1f} s")
                    assert kind in EXPECTED[fate] and at - fell <= LIMIT
            assert set(first) == wanted  # the well are left alone
        finally:
            collector.close()
