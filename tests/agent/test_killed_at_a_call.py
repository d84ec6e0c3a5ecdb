"""Case 23: the node agent is killed at its Nth system call, life after life. What ring and spool held arrives, once, and the sums are exact."""

import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from holter.recorder import Recorder
from holter.ring import Ring, State
from holter.settings import Settings
from holter.testing import CollectorStandIn

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="KILL AT THE NTH CALL OF THE AGENT NOT TESTED: no strace here")


class Rank(threading.Thread):
    """Writes into a ring of its own what a rank would: rows, some of them not finite (spooled at once), marks, and values that are no number."""

    def __init__(self, rings):
        super().__init__(daemon=True)
        self.ring = Ring.create(rings, "r", {"project": "p", "name": "n", "node": "here", "rank": 0}, (os.getpid(), 0), time.monotonic_ns())
        self.recorder = Recorder(self.ring, 0)
        self.rows = self.marks = self.words = 0
        self.is_over = threading.Event()

    def run(self):
        while not self.is_over.wait(0.02):
            self.write(5)

    def write(self, count):
        for _ in range(count):
            value = math.nan if self.rows % 10 == 0 else float(self.rows)
            self.recorder.step(self.rows, loss=value, **({"note": "a word"} if self.rows % 7 == 0 else {}))
            self.words += self.rows % 7 == 0
            self.rows += 1
        self.ring.event({"event": "mark", "rank": 0, "step": None, "time_ns": 0, "attrs": {"at": self.marks}}, lifecycle=True)
        self.marks += 1

    def end(self):
        self.is_over.set()
        self.join()
        self.ring.event({"event": "rank_finished", "rank": 0, "step": None, "time_ns": 0, "attrs": {}}, lifecycle=True)
        self.recorder.close(State.FINISHED)


def live(url, folder, call="", number=0):
    """One life of the agent; with a `call`, ended by SIGKILL at the `number`-th of that name that any of its threads makes."""
    inject = ["strace", "-f", "-q", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}", "-o", "/dev/null"]
    command = [sys.executable, "-m", "holter.node", "--url", url, "--directory", str(folder)]
    return subprocess.Popen([*(inject if call else []), *command], stderr=subprocess.DEVNULL, start_new_session=True)


def killed(url, folder, call, number, seconds):
    """Whether the agent came so far as to be killed there."""
    agent = live(url, folder, call, number)
    try:
        return agent.wait(timeout=seconds) == -signal.SIGKILL
    except subprocess.TimeoutExpired:
        os.killpg(agent.pid, signal.SIGKILL)
        agent.wait()
        return False


def campaign(folder, places, *, is_up):
    """Agents killed at `places`, one after the other, then one that is left to finish; the number of lives that ended as they should."""
    with CollectorStandIn().serving() as collector:
        if not is_up:
            collector.stop()
        rings = Settings(url=collector.url, directory=str(folder)).ring_folders()[0]
        rank = Rank(rings)
        rank.start()
        hits = sum(killed(collector.url, folder, call, number, 6) for call, number in places)
        rank.end()
        if not is_up:
            collector.start()
        last = live(collector.url, folder)
        try:
            collector.wait_for_event("rank_finished", seconds=30)
            last.terminate()
            assert last.wait(30) == 0
        finally:
            last.kill()
            last.wait()
        check(collector, rank)
    return hits


def check(collector, rank):
    declared = Counter()
    for frame in collector.frames:
        declared.update(frame.dropped)
    steps = [step for step, _ in collector.points("loss")]
    assert len(set(steps)) == len(steps), f"{len(steps) - len(set(steps))} rows stand twice"
    assert len(steps) + declared.pop("ring_full", 0) == rank.rows
    marks = [event["attrs"]["at"] for event in collector.events if event["event"] == "mark"]
    assert marks == list(range(rank.marks))
    assert declared == {"value_not_a_number": rank.words}


PLACES = {
    "between the frames of a flush": [("write", 3), ("write", 5), ("write", 6)],
    "before a frame": [("write", 2), ("write", 4), ("write", 8)],
    "at a segment": [("rename", 1), ("fsync", 1), ("unlink", 1)],
    "around an answer": [("sendto", 3), ("recvfrom", 4), ("sendto", 6)],
}


@pytest.mark.parametrize("place", PLACES)
def test_an_agent_that_is_killed_at_a_call_loses_nothing_and_doubles_nothing(tmp_path, place):
    assert campaign(tmp_path, PLACES[place], is_up=True) == 3


def test_what_waits_in_the_spool_while_the_collector_is_away_is_shipped_once(tmp_path):
    assert campaign(tmp_path, [("write", 7), ("write", 12), ("fsync", 3)], is_up=False) == 3


UP, DOWN = 18, 7
"""Shares of the campaign with a collector and without one."""


@pytest.mark.soak
@pytest.mark.parametrize("share", range(UP + DOWN))
def test_five_hundred_kills_at_calls_lose_nothing_and_double_nothing(tmp_path, share):
    """Each life is killed some calls later than the one before it; twenty lives to a share, which have a collector and a spool in common."""
    is_up = share < UP
    calls = ("write", "fsync", "sendto", "unlink", "recvfrom") if is_up else ("write", "fsync")
    # Without a collector nothing is acknowledged and a life makes some eighty calls of these: places farther apart would never be reached.
    first, apart = (1 + share, UP + DOWN) if is_up else (1 + share - UP, DOWN)
    places = [(call, first + apart * number) for number in range(4 if is_up else 10) for call in calls]
    hits = campaign(tmp_path, places, is_up=is_up)
    print(f"{hits} of {len(places)} lives were killed at their call")
    assert hits >= 8
