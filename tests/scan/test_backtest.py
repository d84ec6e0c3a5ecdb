"""`holter backtest`: what is found, what is missed, what is a false alarm, by the rule in `holter_monitor.offline.labels`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from holter.cli import main
from holter_monitor.detectors import DETECTORS
from holter_monitor.offline.labels import kind_of
from holter_monitor.offline.tuning import SettingError, name_of, tuned


def logged(folder: Path, name: str, spikes: dict[int, float], steps: int = 800) -> None:
    rows = [f"{step},{2.5 + 0.02 * math.sin(step * 12.9898) + spikes.get(step, 0.0)}" for step in range(steps)]
    (folder / name).write_text("\n".join(["step,loss", *rows]) + "\n")


def labelled(folder: Path, *labels: dict[str, Any]) -> None:
    (folder / "index.jsonl").write_text("".join(json.dumps({"scope": ["loss"], "labelled": True, **label}) + "\n" for label in labels))


def event(step: int, **more: Any) -> dict[str, Any]:
    return {"kind": "loss_spike", "start_step": step, "end_step": step, "confidence": "certain", **more}


def figures(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)["settings"][-1]
    return answer


def test_found_missed_and_false_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logged(tmp_path, "a.csv", {300: 2.0, 600: 2.0})
    labelled(tmp_path, {"id": "a", "file": "a.csv", "events": [event(300), event(450)]})
    assert main(["backtest", str(tmp_path), "--json"]) == 0
    row = figures(capsys)
    assert (row["events"], row["found"], row["false_alarms"]) == (2, 1, 1)
    assert row["missed"][0]["step"] == 450 and row["false"][0]["step"] == 600
    assert row["recall"] == row["precision"] == 0.5 and row["delay_steps_median"] == 0
    assert row["false_alarms_per_100k_records"] == pytest.approx(1e5 / 800)


@pytest.mark.parametrize("more", [{"confidence": "likely"}, {"expected": True}])
def test_likely_and_expected_events_count_neither_way(tmp_path: Path, capsys: pytest.CaptureFixture[str], more: dict[str, Any]) -> None:
    logged(tmp_path, "a.csv", {300: 2.0})
    labelled(tmp_path, {"id": "a", "file": "a.csv", "events": [event(300, **more)]})
    assert main(["backtest", str(tmp_path), "--json"]) == 0
    assert (figures(capsys)["events"], 0) == (0, 0)


def test_start_up_is_not_judged_and_other_signals_are_not_either(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logged(tmp_path, "a.csv", {300: 2.0})
    logged(tmp_path, "b.csv", {300: 2.0})
    labelled(
        tmp_path,
        {"id": "a", "file": "a.csv", "events": [], "ignore_before_step": 400},
        {"id": "b", "file": "b.csv", "scope": ["throughput"]},
    )
    assert main(["backtest", str(tmp_path), "--json"]) == 0
    assert figures(capsys)["false_alarms"] == 0


def test_two_settings_side_by_side_and_limits_for_ci(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logged(tmp_path, "a.csv", {300: 2.0})
    labelled(tmp_path, {"id": "a", "file": "a.csv", "events": [event(300)]})
    deaf = ["--compare", "loss_spike.off=true", "--compare", "loss_divergence.off=true", "--compare", "loss_shift.off=true"]
    deaf = [
        word for pair in zip(deaf[::2], deaf[1::2], strict=True) if pair[1].partition(".")[0] in map(name_of, DETECTORS) for word in pair
    ]
    assert main(["backtest", str(tmp_path), "--min-recall", "0.9", "--json"]) == 0
    capsys.readouterr()
    assert main(["backtest", str(tmp_path), "--min-recall", "0.9", "--json", *deaf]) == 1
    out, err = capsys.readouterr()
    assert [row["recall"] for row in json.loads(out)["settings"]] == [1.0, 0.0]
    assert "recall 0.000 is below 0.9" in err


def test_false_alarms_above_the_limit_fail(tmp_path: Path) -> None:
    logged(tmp_path, "a.csv", {300: 2.0})
    labelled(tmp_path, {"id": "a", "file": "a.csv", "events": []})
    assert main(["backtest", str(tmp_path), "--max-false-alarms", "2"]) == 1


def test_without_labels_it_counts_alarms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logged(tmp_path, "a.csv", {300: 2.0})
    assert main(["backtest", str(tmp_path), "--json"]) == 0
    row = figures(capsys)
    assert row["recall"] is None and row["unlabelled_alarms"] == 1


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"events": []}',
        '{"id": "a", "events": [{"start_step": 3}]}',
        '{"id": "a", "events": [{"kind": "x", "start_step": "y"}]}',
    ],
)
def test_a_broken_label_is_named_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    logged(tmp_path, "a.csv", {})
    (tmp_path / "index.jsonl").write_text("\n" + line + "\n")
    assert main(["backtest", str(tmp_path)]) == 2
    assert "index.jsonl, line 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    "setting", ["loss_spike", "loss_spike.threshold", "nobody.threshold=1", "loss_spike.nothing=1", "loss_spike.threshold=high"]
)
def test_a_setting_that_means_nothing_is_refused(setting: str) -> None:
    with pytest.raises(SettingError):
        tuned([setting], DETECTORS)


def test_a_setting_reaches_the_detector() -> None:
    (maker,) = (maker for maker in tuned(["loss_spike.threshold=11"], DETECTORS) if name_of(maker) == "loss_spike")
    assert maker().threshold == 11  # type: ignore[attr-defined]


def test_words_of_labels() -> None:
    assert [kind_of(word) for word in ("nan", "divergence", "stall", "restart", "loss_noise")] == [
        "non_finite", "loss_divergence", "throughput_stalls", None, "loss_noise",
    ]  # fmt: skip


POLICY = """
receivers:
  oncall: {type: pagerduty, routing_key: "${SOME_KEY}"}
  chat: {type: log}
routes:
  - match: {kind: non_finite}
    receivers: [oncall]
  - match: {kind: "loss_*"}
    receivers: [chat]
"""


def test_a_policy_decides_what_counts_as_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logged(tmp_path, "a.csv", {300: 2.0, 500: float("nan")})
    labelled(tmp_path, {"id": "a", "file": "a.csv", "events": [event(300)]})
    (tmp_path / "team.yml").write_text(POLICY)
    policy = ["--policies", str(tmp_path / "team.yml"), "--json"]
    for arguments, found, false in (([], 1, 1), (["--receiver", "oncall"], 0, 1), (["--receiver", "chat"], 1, 0)):
        assert main(["backtest", str(tmp_path), *policy, *arguments]) == 0
        row = figures(capsys)
        assert (row["found"], row["false_alarms"]) == (found, false), arguments


@pytest.mark.parametrize(
    "arguments", [["--receiver", "oncall"], ["--policies", "nowhere"], ["--policies", "team.yml", "--receiver", "nobody"]]
)
def test_a_policy_that_cannot_be_tried_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    logged(tmp_path, "a.csv", {})
    (tmp_path / "team.yml").write_text(POLICY)
    assert main(["backtest", str(tmp_path), *arguments]) == 2
