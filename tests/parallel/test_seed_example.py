"""The example that the README shows: the bug is flagged at step 0 by a real collector, and the healthy run is met with silence."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
EXAMPLE = Path(__file__).parents[2] / "examples" / "tp_seed_bug.py"


@pytest.mark.torch
@pytest.mark.timeout(400)
def test_the_seed_bug_is_flagged_at_step_0_and_the_healthy_run_is_not():
    done = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=380)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CRITICAL tp_duplicate_shards at step 0" in done.stdout
    assert "nothing to say" in done.stdout
    assert done.stderr.count("known from") == 2, "the start-up table, once a run"
