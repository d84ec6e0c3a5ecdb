"""`holter scan --save`: a log becomes a run of a real collector, and the collector finds in it what the scan found."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from collector import collector
from holter.cli import main


def test_a_saved_log_is_a_run_with_the_same_incidents_and_nobody_is_woken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "old.csv"
    rows = (f"{step},{'nan' if step == 300 else 2.5 + 0.02 * math.sin(step * 12.9898) + 2.0 * (step == 500)}," for step in range(600))
    log.write_text(
        "step,loss,event\n" + "\n".join(row + ("checkpoint" if place % 200 == 199 else "") for place, row in enumerate(rows)) + "\n"
    )
    with collector(tmp_path / "data") as served:
        assert main(["scan", str(log), "--json", "--save", "--url", served.url]) == 3
        out, err = capsys.readouterr()
        found = {(incident["kind"], incident["onset_step"]) for incident in json.loads(out)}
        assert "603 points and events" in err and {kind for kind, _ in found} == {"non_finite", "loss_spike"}
        (run,) = served.get("runs")["items"]
        assert run["project"] == "scans" and run["name"].endswith("old.csv")

        def incidents() -> set[tuple[str, int]]:
            return {(incident["kind"], incident["onset_step"]) for incident in served.get("incidents", run=run["id"])["items"]}

        served.until(lambda: found <= incidents())
        assert incidents() == found
        (silence,) = served.get("silences")["items"]
        assert silence["matchers"] == {"project": "scans", "run": run["name"]}

        def series() -> dict[str, Any]:
            return served.get(f"runs/{run['id']}/series", metric="loss", rank=0, from_step=299, to_step=301)  # type: ignore[no-any-return]

        served.until(lambda: series()["step"] == [299, 300, 301])
        assert series()["value"][1] == "NaN"
        served.until(lambda: served.get(f"runs/{run['id']}")["state"] == "finished")


def test_without_a_collector_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.csv").write_text("step,loss\n1,2.5\n")
    assert main(["scan", str(tmp_path / "log.csv"), "--save", "--url", "http://127.0.0.1:9"]) == 2
    assert "not saved: no collector answers" in capsys.readouterr().err


def test_attempts_and_save_do_not_go_together(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("step,loss\n1,2.5\n")
    assert main(["scan", str(tmp_path / "log.csv"), "--save", "--attempts"]) == 2
