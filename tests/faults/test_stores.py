"""The stores misbehave: locked, full, away. The answer is 503 or 507 with Retry-After, never 500; what was acknowledged stays; it recovers by itself."""

import os
import shutil
import sqlite3
import subprocess

import pytest
from collector import collector, frame


def test_a_locked_log_is_503_and_recovers(collector):
    run = collector.new_run()
    assert collector.send(frame(run, 1)).status_code == 200
    other = sqlite3.connect(collector.data / "frames.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answer = collector.send(frame(run, 2))
    assert (answer.status_code, answer.headers["Content-Type"]) == (503, "application/problem+json")
    assert int(answer.headers["Retry-After"]) >= 1
    assert collector.get("runs")["items"], "reading goes on"
    other.execute("ROLLBACK")
    other.close()
    assert collector.send(frame(run, 2)).json() == {"ack": 2}
    collector.until(lambda: collector.get(f"runs/{run}/series", metric="loss")["step"] == [1, 2])


def test_a_locked_control_store_loses_nothing(collector):
    run = collector.new_run()
    other = sqlite3.connect(collector.data / "control.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for seq in range(5):
        assert collector.send(frame(run, seq)).status_code == 200, "ingest needs the log alone"
    answer = collector.http.post("/api/v1/runs", json={"project": "p", "name": "other"})
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
    other.execute("ROLLBACK")
    other.close()
    collector.until(lambda: collector.get(f"runs/{run}")["last_step"] == 4)
    collector.until(lambda: collector.http.get("/readyz").status_code == 200)


def can_mount() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("mount") is not None


@pytest.mark.skipif(not can_mount(), reason="FULL DISK NOT TESTED: mounting a small tmpfs needs root")
def test_a_full_disk_is_507_and_recovers(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"FULL DISK NOT TESTED: {mounted.stderr}")
    try:
        with collector(disk / "data", "--free-disk-mib", "0") as running:
            run = running.new_run()
            assert running.send(frame(run, 1)).status_code == 200
            ballast = disk / "ballast"
            with ballast.open("wb", buffering=0) as file:  # what a buffer held back would fail once more when it is closed
                while True:
                    try:
                        file.write(bytes(1 << 16))
                    except OSError:
                        break
            big = [{"event": "padding", "rank": None, "step": None, "time_ns": 1, "attrs": {"x": "y" * 100_000}}]
            answers = [running.send(frame(run, seq, events=big)) for seq in range(2, 30)]
            refused = [answer for answer in answers if answer.status_code != 200]
            assert refused, "the disk was not full"
            assert {answer.status_code for answer in refused} <= {507, 503}
            assert any(answer.status_code == 507 for answer in refused)
            assert all("Retry-After" in answer.headers for answer in refused)
            assert running.get("runs")["items"], "reading goes on"
            ballast.unlink()
            acknowledged = 2 + sum(answer.status_code == 200 for answer in answers)
            running.until(lambda: running.send(frame(run, 100, metrics={"loss": 1.0})).status_code == 200)
            running.until(lambda: running.get(f"runs/{run}")["last_step"] == 100)
            running.until(lambda: len(running.get(f"runs/{run}/series", metric="loss")["step"]) == acknowledged)
            assert running.stop() == 0
    finally:
        subprocess.run(["umount", "-l", disk], check=False)


def test_little_room_is_507_before_the_disk_is_full(tmp_path):
    with collector(tmp_path / "data", "--free-disk-mib", str(1 << 30)) as running:
        run = running.new_run()
        answer = running.send(frame(run, 1))
        assert (answer.status_code, "Retry-After" in answer.headers) == (507, True)
        assert running.http.get("/readyz").status_code == 503
