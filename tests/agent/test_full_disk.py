"""Case 28 on real small disks that are really full, each in a mount namespace of its own (`full_disk.py`)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NAMESPACE = ("unshare", "--mount", "--user", "--map-root-user")


def can_mount() -> bool:
    try:
        return subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@pytest.mark.skipif(not can_mount(), reason="FULL DISKS NOT TESTED: no mount namespace may be made here")
@pytest.mark.parametrize("scenario", ["overflows", "stays_full", "agents_die"])
def test_a_disk_that_is_full(tmp_path, scenario):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HOLTER_")}
    command = [*NAMESPACE, sys.executable, Path(__file__).with_name("full_disk.py"), scenario, tmp_path]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=110, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
