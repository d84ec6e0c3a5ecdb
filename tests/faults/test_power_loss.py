"""Power loss under the frame log: with synchronous=FULL nothing acknowledged is lost; with NORMAL, the negative control, something is."""

import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from power import disk, fuse_is_missing

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(fuse_is_missing() is not None, reason=f"POWER LOSS NOT TESTED: {fuse_is_missing()}")


def lose_power(folder: Path, synchronous: str, seconds: float) -> tuple[int, int, str]:
    """(frames acknowledged, of these lost, SQLite's integrity check) after the power went at a random moment."""
    with disk(folder) as it:
        writer = subprocess.Popen([sys.executable, HERE / "appender.py", it.mount / "log.sqlite", synchronous], stdout=subprocess.PIPE)
        first = writer.stdout.readline()
        assert first, "the appender wrote nothing"
        time.sleep(seconds)
        acknowledged = {int(line) for line in [first, *it.cut(writer)]}
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
