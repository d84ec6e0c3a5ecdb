"""The stores' files are removed, the disk under them turns read-only, or somebody reads on for ever: nothing is acknowledged into nowhere, /readyz says what is
wrong, and it goes on by itself when it is put right."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
from collector import collector, frame
from holter.frame import encode
from holter_monitor.store import write_ahead
from holter_monitor.store.log_sqlite import SqliteFrameLog

WRITES = "pwrite64,write,fdatasync,fsync,ftruncate"


def state(served, part: str) -> str:
    return served.http.get("/readyz").json()["parts"][part]


def elsewhere(served, name: str) -> Path:
    """The file is moved out of the folder; its new place."""
    return Path(shutil.move(served.data / name, served.data.parent / name))


def test_a_log_that_was_removed_takes_nothing(tmp_path):
    with collector(tmp_path / "data") as served:
        run = served.new_run()
        assert served.send(frame(run, 0)).status_code == 200
        moved = elsewhere(served, "frames.sqlite")
        answer = served.send(frame(run, 1))
        assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
        assert "was removed or replaced" in answer.json()["remedy"]
        assert "was removed or replaced" in state(served, "ingest")
        assert 'holter_part_ok{part="ingest"} 0.0' in served.http.get("/metrics").text
        shutil.move(moved, served.data / "frames.sqlite")
        assert [served.send(frame(run, seq)).status_code for seq in (1, 2)] == [200, 200]
        served.until(lambda: served.get(f"runs/{run}/series", metric="loss")["step"] == [0, 1, 2])
        served.until(lambda: served.http.get("/readyz").status_code == 200)


def test_a_control_store_or_points_that_were_removed_lose_nothing(tmp_path):
    with collector(tmp_path / "data") as served:
        run = served.new_run()
        moved = {name: elsewhere(served, name) for name in ("control.sqlite", "samples.duckdb")}
        assert [served.send(frame(run, seq, metrics={"loss": float("nan")})).status_code for seq in range(5)] == [200] * 5
        refused = served.http.post("/api/v1/runs", json={"project": "p", "name": "another"})
        assert (refused.status_code, "Retry-After" in refused.headers) == (503, True)
        assert "was removed or replaced" in state(served, "control store")
        assert "was removed or replaced" in state(served, "samples")
        served.until(lambda: state(served, "detection") != "ok")
        for name, path in moved.items():
            shutil.move(path, served.data / name)
        served.until(lambda: served.get("incidents", run=run)["items"])
        served.until(lambda: served.get(f"runs/{run}/series", metric="loss")["step"] == [0, 1, 2, 3, 4])
        served.until(lambda: served.http.get("/readyz").status_code == 200)


@contextlib.contextmanager
def read_only(served):
    """What the kernel answers to writes after it has remounted a failing disk read-only; the collector's sockets are left alone."""
    command = ["strace", "-f", "-q", "-p", str(served.process.pid), "-P", str(served.data), "-o", "/dev/null"]
    for path in served.data.iterdir():
        command += ["-P", str(path)]
    command += ["-e", f"trace={WRITES}", "-e", f"inject={WRITES}:error=EROFS"]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            tracer.wait(1)
            pytest.skip(f"READ-ONLY DISK NOT TESTED: {tracer.stderr.read()}")
        yield
    finally:
        tracer.terminate()
        tracer.wait(20)
        tracer.stderr.close()


@pytest.mark.skipif(shutil.which("strace") is None, reason="READ-ONLY DISK NOT TESTED: no strace here")
def test_a_disk_that_turns_read_only_takes_nothing_and_is_told_of(tmp_path):
    with collector(tmp_path / "data") as served:
        run = served.new_run()
        assert served.send(frame(run, 0)).status_code == 200
        served.until(lambda: served.get(f"runs/{run}/series", metric="loss")["step"] == [0])
        with read_only(served):
            served.until(lambda: served.send(frame(run, 1)).status_code == 503)
            assert "cannot be written" in state(served, "ingest")
            assert served.get("runs")["items"], "reading goes on"
        served.until(lambda: served.send(frame(run, 1)).status_code == 200)
        for seq in range(2, 10):
            answer = served.send(frame(run, seq))
            assert answer.status_code == 200, answer.text
        served.until(lambda: served.get(f"runs/{run}/series", metric="loss")["step"] == list(range(10)))
        served.until(lambda: served.get(f"runs/{run}")["last_step"] == 9)
        served.until(lambda: served.http.get("/readyz").status_code == 200)


def padded(run: str, seq: int, size: int):
    """A frame of noise, which nothing packs."""
    return frame(
        run, seq, events=[{"event": "padding", "rank": None, "step": None, "time_ns": 1, "attrs": {"x": os.urandom(size // 2).hex()}}]
    )


@contextlib.contextmanager
def reading(path: Path):
    """Somebody has begun to read and does not end: the write-ahead log cannot be emptied."""
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM frames").fetchone()
    yield
    reader.execute("ROLLBACK")
    reader.close()


def test_a_long_reader_is_told_of_and_leaves_no_large_file(tmp_path, monkeypatch):
    monkeypatch.setattr(write_ahead, "PROBLEM_BYTES", 12 << 20)
    monkeypatch.setattr(write_ahead, "SHRINK_BYTES", 1 << 20)
    log = SqliteFrameLog(tmp_path / "frames.sqlite")
    wal = tmp_path / "frames.sqlite-wal"

    def append(seqs: range) -> None:
        for seq in seqs:
            given = padded("run", seq, 1 << 20)
            log.append([(given, encode(given))], 1.0)

    append(range(1))
    with reading(log.path):
        append(range(1, 20))
        assert "has been reading frames.sqlite" in (log.problem() or "")
    append(range(20, 40))
    assert log.problem() is None
    assert wal.stat().st_size < 12 << 20
    log.close()


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_ingest_goes_on_beside_a_long_reader(tmp_path):
    """Five minutes, and at least so much that the write-ahead log is larger than it may be."""
    with collector(tmp_path / "data") as served:
        run, slowest, seq = served.new_run(), [], 0
        wal = served.data / "frames.sqlite-wal"
        with reading(served.data / "frames.sqlite"):
            deadline = time.monotonic() + 300
            while time.monotonic() < deadline or wal.stat().st_size < 300 << 20:
                body, began = encode(padded(run, seq, 200_000)), time.monotonic()
                assert served.send(body).status_code == 200
                slowest.append(time.monotonic() - began)
                seq += 1
                time.sleep(0.1)
            assert "has been reading" in state(served, "ingest")
        print(
            f"{seq} frames, write-ahead log {wal.stat().st_size >> 20} MiB, acknowledgement p99 {sorted(slowest)[int(len(slowest) * 0.99)]:.3f} s"
        )
        served.until(lambda: served.send(padded(run, seq, 1_000)).status_code == 200 and wal.stat().st_size <= 65 << 20)
        served.until(lambda: served.http.get("/readyz").status_code == 200)
