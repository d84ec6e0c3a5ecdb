"""`holter scan --reference`: last month's run held against another log."""

import json

import numpy as np
import pytest
from holter.cli import main


@pytest.fixture
def logs(tmp_path):
    noise = np.random.default_rng(3).normal(0, 0.02, (3, 1_000))
    curve = 2 + 3 * np.exp(-np.arange(1_000) / 200)
    runs = {"small": curve + noise[0], "twin": curve + noise[1], "worse": (curve + noise[2]) * 1.05}
    lines = [f"{name},{(step + 1) * 4096},{loss:.5f}" for name, losses in runs.items() for step, loss in enumerate(losses)]
    (tmp_path / "runs.csv").write_text("\n".join(["run_name,tokens,loss", *lines]))
    return tmp_path


def test_only_the_worse_run_has_a_gap(logs, capsys):
    status = main(["scan", str(logs / "runs.csv"), "--reference", f"{logs / 'runs.csv'}#small", "--json"])
    found = [incident for incident in json.loads(capsys.readouterr().out) if incident["kind"] == "reference_gap"]
    assert [incident["source"].rpartition("#")[2] for incident in found] == ["worse"]
    assert status == 3


@pytest.mark.parametrize(("place", "remedy"), [("", "name one of"), ("#nobody", "name one of"), ("x", "")])
def test_a_reference_that_cannot_be_used_is_said(logs, capsys, place, remedy):
    assert main(["scan", str(logs / "runs.csv"), "--reference", f"{logs / 'runs.csv'}{place}"]) == 2
    assert remedy in capsys.readouterr().err
