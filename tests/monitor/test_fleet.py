"""Goodput of a fleet: hours written behind the runs, summed over a window; as REST, as `holter report --fleet`."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone

import pytest
from collector import frame
from holter.cli import main

T0 = time.time() // 3600 * 3600 - 8 * 3600


def at(hours):
    return datetime.fromtimestamp(T0 + hours * 3600, timezone.utc).isoformat()


WINDOW = {"since": at(0), "until": at(10)}


def steps(served, run, attempt, first, last, *, start, ranks, seconds=60.0):
    for step in range(first, last):
        ended = start + (step - first + 1) * seconds
        begun = {"event": "rank_started", "rank": 0, "step": None, "time_ns": int(start * 1e9), "attrs": {"world_size": ranks}}
        told = {"attempt": attempt, "boot": attempt + run, "time_ns": [int(ended * 1e9)] * ranks, "sent_ns": int(ended * 1e9)}
        events = [begun] if step == first else []
        metrics = {"step_time_seconds": seconds, "data_wait_seconds": seconds / 4}
        answer = served.send(frame(run, step, step=step, metrics=metrics, events=events, ranks=tuple(range(ranks)), **told))
        assert answer.status_code == 200
    return start + (last - first) * seconds


@pytest.fixture(scope="module")
def fleet(served):
    """A run of 8 ranks that broke, stood still for an hour and did ten steps again; a calm one of 2 ranks in another project."""
    broken = served.new_run("<i>broken</i>", project="big", world_size=8)
    end = steps(served, broken, "a1", 0, 100, start=T0, ranks=8)
    lost = {"event": "rank_lost", "rank": 3, "step": 99, "time_ns": int(end * 1e9), "attrs": {"evidence": {"signal": 9}}}
    served.send(frame(broken, 200, step=99, attempt="a1", boot="a1" + broken, events=[lost], time_ns=[int(end * 1e9)]))
    steps(served, broken, "a2", 90, 150, start=end + 3_600, ranks=8)
    calm = served.new_run("calm", project="small", world_size=2)
    steps(served, calm, "a1", 0, 60, start=T0, ranks=2)

    def complete():
        answer = served.get("goodput", **WINDOW)
        hours = {share["project"]: share["gpu_hours"]["wall"] for share in answer["projects"]}
        return hours == pytest.approx({"big": (160 + 60) * 8 / 60, "small": 2.0}) and answer["incidents"]

    served.until(complete)
    return {"broken": broken, "calm": calm}


def test_hours_are_weighed_by_gpus_and_add_up(served, fleet):
    answer = served.get("goodput", gpu_hour_price=2, **WINDOW)
    by_project = {share["project"]: share for share in answer["projects"]}
    hours = by_project["big"]["gpu_hours"]
    assert hours["down"] == pytest.approx(8.0)
    assert hours["recomputed"] == pytest.approx(10 * 60 * 8 / 3600)
    assert hours["data"] == pytest.approx(150 * 15 * 8 / 3600)
    assert by_project["small"]["gpu_hours"]["wall"] == pytest.approx(2.0)
    whole = answer["gpu_hours"]
    assert sum(whole[cause] for cause in whole if cause != "wall") == pytest.approx(whole["wall"])
    assert answer["goodput"] == pytest.approx(whole["productive"] / whole["wall"])
    assert answer["lost_money"] == pytest.approx(2 * (whole["wall"] - whole["productive"]))
    assert answer["items"][0]["run"] == fleet["broken"], "the largest loss first"


def test_failures_have_their_rates_and_their_cost(served, fleet):
    answer = served.get("goodput", gpu_hour_price=2, **WINDOW)
    assert answer["failures"] == 1
    assert answer["seconds_to_recover"] == pytest.approx(3_600)
    assert answer["seconds_between_failures"] == pytest.approx((100 + 60 + 60) * 60)
    (dear,) = [each for each in answer["incidents"] if each["kind"] == "rank_lost"]
    assert dear["cost_seconds"] >= 3_600 + 600, "down, and steps done again"
    assert dear["money"] == pytest.approx(2 * dear["gpu_hours"])


def test_a_window_cuts_and_a_project_filters(served, fleet):
    hour = served.get("goodput", since=at(0), until=at(1))
    assert hour["gpu_hours"]["wall"] == pytest.approx(10.0)
    small = served.get("goodput", project="small", **WINDOW)
    assert small["runs"] == 1 and small["goodput"] == pytest.approx(0.75)
    nothing = served.get("goodput", since="2001-01-01T00:00:00Z", until="2001-01-02T00:00:00Z")
    assert nothing["goodput"] is None and nothing["items"] == []


def test_a_window_that_ends_before_it_begins_is_refused(served):
    answer = served.http.get("/api/v1/goodput", params={"since": WINDOW["until"], "until": WINDOW["since"]})
    assert answer.status_code == 422 and answer.json()["field"] == "since"


def test_the_report_says_it_in_markdown_json_and_as_a_page(served, fleet, tmp_path, capsys):
    asked = ["report", "--fleet", "--url", served.url, "--since", WINDOW["since"], "--until", WINDOW["until"], "--gpu-hour-price", "2"]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert "| down between attempts | 8" in said and "big/<i>broken</i>" in said
    assert "|---|---|---|---|\n| effective training time |" in said
    assert main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["failures"] == 1
    page = tmp_path / "fleet.html"
    assert main([*asked, "--html", str(page)]) == 0
    text = page.read_text()
    assert "&lt;i&gt;broken" in text and "<i>broken" not in text and "script" not in text


@pytest.mark.parametrize("words", [[], ["run", "--fleet"], ["--fleet", "--since", "yesterday"]])
def test_nonsense_is_refused(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["report", *words])
    assert stopped.value.code == 2
