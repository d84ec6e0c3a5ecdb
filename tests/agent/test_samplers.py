"""Samplers: the real ones on this machine, NVML through a library of ours that plays a script, and what happens when one fails."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from holter.node.sampling import Sampling
from holter.samplers import NODE, Place, Sample
from holter.samplers.host import Host
from holter.samplers.process import Process

HERE = Path(__file__).parent / "nvml"
LOOK = """
import json, sys
from holter.samplers import Place, SamplerAbsent
from holter.samplers.nvml import Nvml
script = sys.argv[1]
sampler = Nvml()
places = [Place(pid=100 + index, local_rank=index) for index in range(2)]
for lines in json.load(sys.stdin):
    open(script, "w").write("\\n".join(lines))
    try:
        sample = sampler.sample(places)
        print(json.dumps([sample.values, sample.events]))
    except SamplerAbsent as error:
        print(json.dumps(["absent", str(error)]))
"""
CARD = ["-1 cards 2"] + [
    f"{card} {key} {value}"
    for card in (0, 1)
    for key, value in {
        "utilization": 97,
        "memory_used": 1 << 30,
        "temperature": 61,
        "power": 650_000,
        "sm_clock": 1980,
        "sm_clock_max": 1980,
        "memory_clock": 2619,
        "throttle": 0,
        "ecc_corrected": 3,
        "ecc_uncorrected": 0,
        "remapped": 0,
        "replays": 7,
        "pcie_transmit": 10,
        "pcie_receive": 20,
        "nvlink_errors": 1,
    }.items()
]


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    if shutil.which("cc") is None:
        pytest.skip("no C compiler: the fake libnvidia-ml.so cannot be built (install gcc)")
    folder = tmp_path_factory.mktemp("nvml")
    command = ["cc", "-shared", "-fPIC", "-o", str(folder / "libnvidia-ml.so.1"), str(HERE / "fake_nvml.c")]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture
def look(library, tmp_path):
    """`look(lines, lines, ...)`: what the sampler found at each look while the cards behaved as scripted."""

    def looks(*scripts):
        script = tmp_path / "script"
        script.touch()
        environment = {**os.environ, "LD_LIBRARY_PATH": str(library), "FAKE_NVML": str(script)}
        done = subprocess.run(
            [sys.executable, "-c", LOOK, str(script)],
            input=json.dumps(scripts),
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return looks


def test_every_reading_of_a_healthy_card(look):
    [(values, events)] = look(CARD)
    assert events == []
    assert (
        values["100"]
        == values["101"]
        == {
            "gpu_utilization_ratio": 0.97,
            "gpu_memory_used_bytes": float(1 << 30),
            "gpu_memory_total_bytes": float(80 << 30),
            "gpu_temperature_celsius": 61.0,
            "gpu_power_watts": 650.0,
            "gpu_sm_clock_hertz": 1.98e9,
            "gpu_sm_clock_max_hertz": 1.98e9,
            "gpu_memory_clock_hertz": 2.619e9,
            "gpu_throttle_reasons": 0.0,
            "gpu_ecc_corrected_total": 3.0,
            "gpu_ecc_uncorrected_total": 0.0,
            "gpu_remapped_rows_total": 0.0,
            "gpu_pcie_replays_total": 7.0,
            "gpu_pcie_receive_bytes_per_second": 20 * 1024.0,
            "gpu_pcie_transmit_bytes_per_second": 10 * 1024.0,
            "gpu_nvlink_errors_total": 2.0,
        }
    )


def test_what_a_card_cannot_tell_is_absent_and_not_zero(look):
    [(values, _)] = look(["-1 cards 2", "0 temperature 50"])
    assert values == {"100": {"gpu_temperature_celsius": 50.0}, "101": {}}


def test_a_throttled_card_says_why(look):
    (_, _), (values, _) = look(CARD, [*CARD, "1 throttle 64", "1 sm_clock 1200"])
    assert values["101"]["gpu_throttle_reasons"] == 64.0 and values["101"]["gpu_sm_clock_hertz"] == 1.2e9
    assert values["100"]["gpu_throttle_reasons"] == 0.0


def test_the_same_xid_twice_is_two_events(look):
    *_, (_, first), (_, second), (_, third) = look(
        CARD, [*CARD, "1 xid 79", "1 xid_count 1"], [*CARD, "1 xid 79", "1 xid_count 2"], [*CARD, "1 xid 79", "1 xid_count 2"]
    )
    expected = ["gpu_error", 101, {"gpu": "GPU-fake-1", "xid": 79, "text": "XID 79"}]
    assert (first, second, third) == ([expected], [expected], [])


def test_a_counter_that_grows_is_one_event_and_one_that_stands_is_none(look):
    (_, first), (_, second), (_, third) = look(
        [*CARD, "0 ecc_uncorrected 5"], [*CARD, "0 ecc_uncorrected 7"], [*CARD, "0 ecc_uncorrected 7"]
    )
    assert first == [] and third == []
    assert [event[2]["text"] for event in second] == ["GPU 0: 2 more uncorrected ECC errors, 7 in all"]


def test_a_card_that_falls_off_the_bus_is_told_once_and_the_other_goes_on(look):
    _, (values, events), (later, no_events) = look(CARD, [*CARD, "1 lost 1"], [*CARD, "1 lost 1"])
    assert [event[:2] for event in events] == [["gpu_error", 101]] and "fell off the bus" in events[0][2]["text"]
    assert "101" not in values and "100" in values and "100" in later and no_events == []


def test_no_driver_is_an_absence_and_no_failure(look):
    assert look(["-1 init 9"])[0][0] == "absent"
    assert look(["-1 cards 0"])[0][0] == "absent"


def test_the_host_and_this_process_are_read():
    host = Host()
    host.sample([])
    found = host.sample([]).values[NODE]
    assert found["host_memory_total_bytes"] > 0 and 0 <= found["host_cpu_ratio"] <= 1
    assert any(name.startswith("host_disk_free_bytes.") for name in found) or found["host_memory_available_bytes"] > 0
    process = Process().sample([Place(pid=os.getpid(), local_rank=0), Place(pid=2**22 + 1, local_rank=1)]).values
    assert set(process) == {os.getpid()} and process[os.getpid()]["process_memory_rss_bytes"] > 1e6


class Scripted:
    name = "scripted"
    every_seconds = 0.0
    does = staticmethod(lambda: Sample())

    def sample(self, places):
        return type(self).does()


@pytest.fixture
def sampling(tmp_path):
    told, off = [], []
    desk = Sampling([Scripted], tmp_path, told.append, lambda name, reason: off.append((name, reason)))

    def looks(until, seconds=5.0):
        deadline = time.monotonic() + seconds
        while not until() and time.monotonic() < deadline:
            desk.look([Place(pid=1, local_rank=0)])
            time.sleep(0.01)

    return desk, told, off, looks


def test_a_sampler_that_fails_is_switched_off_and_told_once(sampling):
    _, _, off, looks = sampling
    Scripted.does = staticmethod(lambda: 1 / 0)
    looks(lambda: off)
    looks(lambda: len(off) > 1, 0.3)
    assert off == [("scripted", "ZeroDivisionError: division by zero")]


def test_a_sampler_that_hangs_costs_nothing_but_its_numbers(sampling, monkeypatch):
    monkeypatch.setattr("holter.node.sampling.HANGS_AFTER_SECONDS", 0.2)
    _, told, off, looks = sampling
    Scripted.does = staticmethod(lambda: time.sleep(1.0) or Sample())
    looks(lambda: off)
    assert off == [("scripted", "no answer in 0 s")] and told == []


def test_a_library_that_killed_the_agent_is_not_asked_again(tmp_path):
    (tmp_path / "scripted.fuse").write_bytes(b"1")
    off = []
    Scripted.does = staticmethod(lambda: pytest.fail("asked"))
    desk = Sampling([Scripted], tmp_path, lambda sample: None, lambda name, reason: off.append(reason))
    for _ in range(5):
        desk.look([Place(pid=1, local_rank=0)])
    assert off == ["the agent died inside it"]
