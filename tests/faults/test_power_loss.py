"""Power loss under the frame log: with synchronous=FULL nothing acknowledged is lost; with NORMAL, the negative control, something is."""

import ctypes.util
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
os.environ.setdefault("FUSE_LIBRARY_PATH", ctypes.util.find_library("fuse3") or "")  # mfusepy itself looks for version 2 only


def fuse_is_missing() -> str | None:
    if not os.path.exists("/dev/fuse"):
        return "no /dev/fuse here"
    if not os.access("/dev/fuse", os.W_OK):
        return "/dev/fuse is not ours to use"
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError, AttributeError) as error:
        return f"mfusepy cannot be used: {error}"
    return None


pytestmark = pytest.mark.skipif(fuse_is_missing() is not None, reason=f"POWER LOSS NOT TESTED: {fuse_is_missing()}")


def lose_power(folder: Path, synchronous: str, seconds: float) -> tuple[int, int, str]:
    """(frames acknowledged, of these lost, SQLite's integrity check) after the power went at a random moment."""
    for name in ("live", "durable", "mount"):
        (folder / name).mkdir(parents=True)
    mount = folder / "mount"
    disk = subprocess.Popen([sys.executable, HERE / "losefs.py", folder / "live", folder / "durable", mount], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 20
        while not os.path.ismount(mount):
            assert disk.poll() is None, disk.stderr.read().decode()
            assert time.monotonic() < deadline, "the file system did not come up"
            time.sleep(0.05)
        writer = subprocess.Popen([sys.executable, HERE / "appender.py", mount / "log.sqlite", synchronous], stdout=subprocess.PIPE)
        os.set_blocking(writer.stdout.fileno(), True)
        first = writer.stdout.readline()
        assert first, "the appender wrote nothing"
        time.sleep(seconds)
        disk.send_signal(signal.SIGKILL)
        writer.send_signal(signal.SIGKILL)
        acknowledged = {int(line) for line in [first, *writer.stdout.read().splitlines(keepends=True)] if line.endswith(b"\n")}
        writer.wait(20)
        writer.stdout.close()
    finally:
        disk.kill()
        disk.wait(20)
        disk.stderr.close()
        subprocess.run(["fusermount3", "-uz", mount], check=False, capture_output=True)
        subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
    with sqlite3.connect(folder / "durable" / "log.sqlite") as after:
        (verdict,) = after.execute("PRAGMA integrity_check").fetchone()
        try:
            there = {seq for (seq,) in after.execute("SELECT seq FROM frames")}
        except sqlite3.OperationalError:  # not even the tables were durable
            there = set()
    after.close()
    return len(acknowledged), len(acknowledged - there), verdict


def test_full_loses_nothing_and_normal_does(tmp_path):
    rng = random.Random(7)
    for number in range(3):
        acknowledged, lost, verdict = lose_power(tmp_path / f"full{number}", "FULL", rng.uniform(0.2, 1.0))
        assert acknowledged > 8
        assert (lost, verdict) == (0, "ok")
    lost = sum(lose_power(tmp_path / f"normal{number}", "NORMAL", rng.uniform(0.2, 1.0))[1] for number in range(2))
    assert lost > 0, "the file system forgets nothing, so the test above proves nothing"


@pytest.mark.soak
def test_two_hundred_power_losses(tmp_path):
    rng = random.Random(8)
    results = [lose_power(tmp_path / str(number), "FULL", rng.uniform(0.05, 1.5)) for number in range(200)]
    print(f"{sum(result[0] for result in results)} acknowledged in 200 power losses")
    assert [(lost, verdict) for _, lost, verdict in results] == [(0, "ok")] * 200
