"""`holter scan PATH… --json`: the contract that other programs rely on."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from holter.cli import main

KEYS = ["source", "kind", "severity", "onset_step", "end_step", "detected_step", "metric", "rank", "summary", "cost", "evidence"]


def spiking_log(path: Path, at: int = 400, height: float = 3.0) -> Path:
    rows = [f"{step},{2.5 + 0.02 * math.sin(step * 12.9898) + (height if step == at else 0)}" for step in range(600)]
    path.write_text("\n".join(["step,loss", *rows]) + "\n")
    return path


def test_an_incident_has_the_keys_of_the_contract_and_the_exit_status_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = spiking_log(tmp_path / "run.csv")
    assert main(["scan", str(log), "--json"]) == 3
    (incident,) = json.loads(capsys.readouterr().out)
    assert list(incident) == KEYS
    assert incident["source"] == str(log) and incident["kind"] == "loss_spike" and incident["severity"] == "warning"
    assert incident["onset_step"] == incident["detected_step"] == 400
    assert incident["metric"] == "loss" and incident["rank"] is None


def test_a_healthy_log_gives_an_empty_array_and_status_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", str(spiking_log(tmp_path / "run.csv", height=0.0)), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_printed_nan_is_found_and_an_empty_cell_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said, empty = tmp_path / "said.csv", tmp_path / "empty.csv"
    said.write_text("step,loss\n" + "".join(f"{step},{'nan' if step == 60 else 2.5}\n" for step in range(100)))
    empty.write_text("step,loss\n" + "".join(f"{step},{'' if step == 60 else 2.5}\n" for step in range(100)))
    assert main(["scan", str(said), str(empty), "--json"]) == 3
    incidents = json.loads(capsys.readouterr().out)
    assert [(incident["source"], incident["kind"], incident["onset_step"]) for incident in incidents] == [(str(said), "non_finite", 60)]


def test_an_unreadable_log_is_named_and_the_others_are_scanned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    garbage = tmp_path / "garbage.csv"
    garbage.write_bytes(bytes(range(256)) * 50)
    log = spiking_log(tmp_path / "run.csv")
    assert main(["scan", str(garbage), str(log), str(tmp_path / "absent"), "--json"]) == 2
    out, err = capsys.readouterr()
    assert [incident["source"] for incident in json.loads(out)] == [str(log)]
    assert str(garbage) in err and "expected one of" in err and "absent: no such file or folder" in err
