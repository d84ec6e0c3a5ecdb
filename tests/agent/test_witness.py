"""Stacks on request and before anybody may call it a hang; real processes and rings throughout."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from holter.node.harvest import Pace
from holter.node.process import ProcessWatch
from holter.node.reader import RingReader
from holter.node.shipper import Destination
from holter.node.spool import Spool
from holter.node.stacks import by_signal, is_caught
from holter.node.watched import WatchedRank, WatchedRun
from holter.node.witness import EARLY_SECONDS, Witness
from holter.ring import Ring


def test_a_request_in_an_acknowledgement_is_answered_once_and_the_training_goes_on(collector, train):
    process = train(collector.url, steps=10_000, tail="run.finish()")
    collector.wait_for_event("rank_started")
    collector.stacks_asked = {"id": 7}
    collector.wait_for(lambda seen: len(seen.points("loss")) > 50)
    collector.stacks_asked = {"id": "r1"}
    told = collector.wait_for_event("stacks", seconds=30)
    assert told["attrs"]["request"] == "r1" and told["rank"] is None and told["step"] >= 0
    [group] = told["attrs"]["stacks"]
    assert group["ranks"] == [0] and group["stack"]
    seen = len(collector.points("loss"))
    collector.wait_for(lambda now: len(now.points("loss")) > seen + 50)
    assert [event["event"] for event in collector.events].count("stacks") == 1
    assert process.poll() is None


@pytest.fixture
def watch(tmp_path):
    """A run on this node whose one rank is a sleeping process, quiet for so many seconds: `(run, witness)`."""
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

    def of(quiet):
        ring = Ring.create(tmp_path, "r", {"rank": 0}, (sleeper.pid, 0), time.monotonic_ns() - int(quiet * 1e9))
        run = WatchedRun({}, "a", "n", Destination({}, Spool(folder=tmp_path / "spool")))
        run.ranks.append(WatchedRank(RingReader(ring.path), Pace(), ProcessWatch(sleeper.pid, 0)))
        return run, Witness(run)

    yield of
    sleeper.kill()
    sleeper.wait()


def looked(run, witness, count=1):
    """The run's events once there are so many of them."""
    until = time.monotonic() + 30
    while len(run.events) < count and time.monotonic() < until:
        witness.look()
        time.sleep(0.01)
    return run.events


def test_stacks_are_taken_before_nccl_would_end_the_processes_though_no_hang_may_be_called_yet(watch):
    """A first step may take twenty minutes; NCCL's patience ends after ten."""
    run, witness = watch(EARLY_SECONDS + 1)
    [told] = looked(run, witness)
    assert told["event"] == "stacks" and told["attrs"]["stacks"][0]["ranks"] == [0]
    assert told["attrs"]["reason"] == "no progress for 241 s"
    [witness.look() for _ in range(3)]
    assert len(run.events) == 1, "one quiet is witnessed once"


def test_a_hang_carries_the_stacks_and_one_that_ended_meanwhile_does_not_hang(watch):
    run, witness = watch(1300)
    [told] = looked(run, witness)
    assert (told["event"], told["rank"], told["attrs"]["phase"]) == ("rank_hung", 0, "start")
    assert told["attrs"]["stacks"][0]["ranks"] == [0]
    other, witness = watch(1300)
    witness.look()
    other.ranks.clear()
    [told] = looked(other, witness)
    assert told["event"] == "stacks" and told["attrs"]["seconds"] >= 1300


def test_requests_that_come_too_fast_wait_and_the_newest_counts(watch):
    run, witness = watch(0)
    for number in range(5):
        run.destination.stacks_asked = {"id": f"r{number}"}
        witness.look()
    looked(run, witness)
    [witness.look() for _ in range(5)]
    assert [event["attrs"]["request"] for event in run.events] == ["r0"]
    witness._began_at -= 60
    looked(run, witness, 2)
    assert [event["attrs"]["request"] for event in run.events] == ["r0", "r4"]


def test_what_waits_is_said_at_the_end_with_or_without_stacks(watch):
    run, witness = watch(0)
    run.destination.stacks_asked = {"id": "r"}
    witness.look()
    witness.tell()
    assert [event["attrs"]["request"] for event in run.events] == ["r"]


def test_a_signal_goes_to_no_process_without_a_handler_for_it(tmp_path):
    """Registered and then exec'd: what was a dump before would be the end now."""
    code = "import os, signal, sys; signal.signal(signal.SIGUSR2, print); os.execv(sys.executable, [sys.executable, '-c', 'input()'])"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    (tmp_path / "r.stacks").write_text("")
    try:
        until = time.monotonic() + 20
        while b"input()" not in Path(f"/proc/{process.pid}/cmdline").read_bytes() and time.monotonic() < until:
            time.sleep(0.02)
        assert by_signal(process.pid, signal.SIGUSR2, tmp_path / "r.stacks") == ""
        assert process.poll() is None
        assert is_caught(process.pid, signal.SIGUSR2) is False
    finally:
        process.kill()
        process.wait()
    before = signal.signal(signal.SIGUSR2, lambda *_: None)
    try:
        assert is_caught(os.getpid(), signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)
