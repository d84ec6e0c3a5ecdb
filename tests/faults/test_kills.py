"""SIGKILL at any moment: what was acknowledged is there afterwards, once; incidents keep their identity and are told once."""

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from collector import Collector, collector, frame
from sender import Agent, check

HERE = Path(__file__).parent
no_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="KILL AT THE NTH WRITE NOT TESTED: no strace here")


def hunt(data: Path, kills: int, seed: int) -> int:
    """Kill the collector `kills` times while four agents send; the number of frames that they hold an acknowledgement for."""
    rng = random.Random(seed)
    with collector(data) as running:
        runs = {node: running.new_run(node) for node in ("n1", "n2", "n3", "n4")}
        agents = [Agent(running, run, node) for node, run in runs.items()]
        for agent in agents:
            agent.start()
        for _ in range(kills):
            before = sum(agent.acknowledged for agent in agents)
            running.until(lambda before=before: sum(agent.acknowledged for agent in agents) >= before + 15, seconds=60)
            time.sleep(rng.uniform(0.0, 0.7))
            running.kill()
            running.start()
        time.sleep(0.5)
        for agent in agents:
            agent.done.set()
        for agent in agents:
            agent.join(20)
        for agent in agents:
            check(running, agent)
        assert running.stop() == 0
    return sum(agent.acknowledged for agent in agents)


@pytest.mark.timeout(400)
def test_kill_at_random_loses_nothing(tmp_path):
    assert hunt(tmp_path / "data", kills=2, seed=1) >= 30


@pytest.mark.soak
def test_two_hundred_kills_lose_nothing(tmp_path):
    print(f"{hunt(tmp_path / 'data', kills=200, seed=2)} frames acknowledged through 200 kills")


def test_a_kill_alerts_nobody_twice(tmp_path):
    """The spike is judged, the collector dies, the log is judged again from the snapshot: the same incident, the same one notice."""
    with collector(tmp_path / "data") as running:
        run = running.new_run("spiked")
        for seq in range(40):
            running.send(frame(run, seq, metrics={"loss": float("nan") if seq == 30 else 2.0}))
        before = running.until(lambda: running.get("incidents", run=run)["items"])
        for _ in range(2):
            running.kill()
            running.start()
        running.send(frame(run, 40))
        running.until(lambda: running.get(f"runs/{run}")["last_step"] == 40)
        after = running.get("incidents", run=run)["items"]
        assert [each["id"] for each in after] == [each["id"] for each in before]
        running.stop()
    with sqlite3.connect(tmp_path / "data" / "control.sqlite") as control:
        rows = control.execute("SELECT incident, receiver, transition, count(*) FROM outbox GROUP BY 1, 2, 3").fetchall()
    control.close()
    assert rows
    assert all(count == 1 for *_, count in rows), rows


def test_a_kill_before_the_first_snapshot_forgets_nothing(tmp_path):
    """The engine saw the NaN in its first life; that it has passed is said in its second, which can only know it from the log."""
    with collector(tmp_path / "data") as running:
        run = running.new_run("early")
        for seq in range(31):
            running.send(frame(run, seq, metrics={"loss": float("nan") if seq == 30 else 2.0}))
        running.until(lambda: running.get("incidents", run=run, kind="non_finite")["items"])
        running.kill()
        running.start()
        for seq in range(31, 60):
            running.send(frame(run, seq))
        running.until(lambda: running.get("incidents", run=run, kind="non_finite")["items"][0]["end_step"])
        assert running.stop() == 0


def kill_at(call: str, number: int, folder: Path) -> tuple[int, int, str]:
    """(acknowledged, lost, integrity) of a log whose writer was killed at its `number`-th system call of this name."""
    folder.mkdir()
    log = folder / "log.sqlite"
    inject = f"inject={call}:signal=SIGKILL:when={number}"
    command = [
        "strace",
        "-f",
        "-q",
        "-e",
        f"trace={call}",
        "-e",
        inject,
        "-o",
        "/dev/null",
        sys.executable,
        HERE / "appender.py",
        log,
        "FULL",
    ]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        said, _ = writer.communicate(timeout=60)
    finally:
        writer.kill()
    acknowledged = {int(line) for line in said.splitlines(keepends=True) if line.endswith(b"\n")}
    with sqlite3.connect(log) as after:
        (verdict,) = after.execute("PRAGMA integrity_check").fetchone()
        tables = after.execute("SELECT count(*) FROM sqlite_master WHERE name = 'frames'").fetchone()[0]
        there = {seq for (seq,) in after.execute("SELECT seq FROM frames")} if tables else set()
    after.close()
    return len(acknowledged), len(acknowledged - there), verdict


@no_strace
@pytest.mark.parametrize(("call", "number"), [("pwrite64", 3), ("pwrite64", 11), ("pwrite64", 47), ("fdatasync", 2), ("fdatasync", 6)])
def test_kill_at_the_nth_write_loses_nothing(tmp_path, call, number):
    acknowledged, lost, verdict = kill_at(call, number, tmp_path / "log")
    assert (lost, verdict) == (0, "ok")
    if number > 40:
        assert acknowledged > 0, "the writer was killed before it acknowledged anything"


@no_strace
@pytest.mark.soak
def test_kill_at_each_of_a_thousand_writes_loses_nothing(tmp_path):
    for number in range(1, 1001):
        call = "pwrite64" if number % 4 else "fdatasync"
        _, lost, verdict = kill_at(call, number, tmp_path / str(number))
        assert (lost, verdict) == (0, "ok"), f"{call} {number}"


@no_strace
def test_an_fsync_error_is_no_acknowledgement(tmp_path):
    """EIO once: 503 for the frames of that group, the log reopened and checked, then on; nothing acknowledged is lost."""
    inject = ("strace", "-f", "-q", "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=60", "-o", "/dev/null")
    with collector(tmp_path / "data", prefix=inject) as running:
        run = running.new_run()
        refused, acknowledged = 0, []
        for seq in range(200):
            answer = running.send(frame(run, seq, metrics={"loss": 1.0}))
            if answer.status_code == 200:
                acknowledged.append(seq)
            else:
                assert answer.status_code == 503
                assert "Retry-After" in answer.headers
                refused += 1
            if refused and len(acknowledged) > 20 and seq - acknowledged[-20] < 25:
                break
        running.kill(signal.SIGKILL)
    with sqlite3.connect(tmp_path / "data" / "frames.sqlite") as log:
        there = {seq for (seq,) in log.execute("SELECT seq FROM frames")}
        there |= {seq for first, last in log.execute("SELECT first, last FROM seen") for seq in range(first, last + 1)}
        (verdict,) = log.execute("PRAGMA integrity_check").fetchone()
    log.close()
    assert verdict == "ok"
    assert set(acknowledged) <= there
    assert acknowledged[-1] > 20, "it never took frames again"


@pytest.mark.timeout(400)
@pytest.mark.parametrize("times", [2, pytest.param(50, marks=pytest.mark.soak)])
def test_a_collector_that_is_told_to_end_under_load_ends_in_order(tmp_path, times):
    """Its exit status is 0; what it acknowledged until then is there in its next life, what it could not it did not acknowledge."""
    with collector(tmp_path / "data") as running:
        agents = [Agent(running, running.new_run(node), node) for node in ("n1", "n2", "n3", "n4")]
        for agent in agents:
            agent.start()
        for _ in range(times):
            before = sum(agent.acknowledged for agent in agents)
            running.until(lambda before=before: sum(agent.acknowledged for agent in agents) >= before + 40)
            assert running.stop() == 0
            running.start()
        for agent in agents:
            agent.done.set()
        for agent in agents:
            agent.join(20)
            check(running, agent)
        assert running.stop() == 0
    assert "Traceback" not in (tmp_path / "data.stderr").read_text()


def test_a_collector_that_is_told_to_end_as_it_starts_ends_in_order(tmp_path):
    """The signal comes when the address has just been said, and the server does not listen for signals yet."""
    for number in range(4):
        running = Collector(tmp_path / "data").start()
        time.sleep(number * 0.003)
        try:
            assert running.stop() == 0
        finally:
            running.close()
