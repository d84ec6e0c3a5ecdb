"""`holter report`: a run's account in Markdown and as a page, from a real collector."""

import json

import pytest
from collector import frame
from holter.cli import main
from holter_monitor.report.sparks import spark

T0 = 1_700_000_000


def steps(served, run, attempt, first, last, *, start, seconds=2.0):
    """Steps of `seconds` each, the fifth three times as long."""
    at = start
    for seq, step in enumerate(range(first, last)):
        took = seconds * (3 if step == 5 else 1)
        at += took
        events = (
            [{"event": "rank_started", "rank": 0, "step": None, "time_ns": start * 10**9, "attrs": {"world_size": 2}}] if seq == 0 else []
        )
        told = {
            "attempt": attempt,
            "boot": attempt + run,
            "events": events,
            "time_ns": [int(at * 10**9)] * 2,
            "ranks": (0, 1),
            "sent_ns": int(at * 10**9),
        }
        served.send(frame(run, seq, step=step, metrics={"loss": 2.0, "step_time_seconds": took}, **told))
    return at


@pytest.fixture(scope="module")
def twice(served):
    """A run whose second attempt does ten steps again."""
    run = served.new_run("<b>twice</b>", project="report", world_size=2)
    end = steps(served, run, "a1", 0, 60, start=T0)
    lost = {"event": "rank_lost", "rank": 0, "step": 59, "time_ns": int(end * 10**9), "attrs": {"evidence": {}}}
    served.send(frame(run, 60, step=59, attempt="a1", boot="a1" + run, events=[lost], time_ns=[int(end * 10**9)] * 2, ranks=(0, 1)))
    steps(served, run, "a2", 50, 120, start=int(end) + 600)
    served.until(lambda: (served.get(f"runs/{run}/goodput")["down_seconds"] or 0) >= 590)
    served.until(
        lambda: served.get(f"runs/{run}/series", metric="loss")["step"][-1:] == [119]
    )  # the sample writer is a consumer of its own
    return run


def test_markdown_says_where_the_time_went(served, twice, capsys):
    assert main(["report", twice, "--url", served.url, "--gpu-hour-price", "10"]) == 0
    said = capsys.readouterr().out
    assert "Goodput **" in said
    assert "| down between attempts | 10.0 min |" in said
    table = said[said.index("| where") : said.index("```text")].strip().splitlines()
    assert all(line.startswith("|") for line in table), "an empty line ends a table in Markdown"
    assert "| steps done again after a restart | 20 s |" in said
    assert "lost: " in said and "GPU-hours" in said
    assert "| 1 | lost | 10.0 min | 0 s | 20 s | 10.3 min, 0.344 GPU-hours, 3.44 |" in said, "what the failure cost"
    assert "step time seconds" in said and "steps 0 to 119: 2 to 6, now 2" in said
    # Ten minutes of two GPUs at 10 an hour.
    assert "3.33 |" in said


def test_the_page_is_whole_and_escapes_what_users_named(served, twice, tmp_path, capsys):
    page = tmp_path / "report.html"
    assert main(["report", twice, "--url", served.url, "--html", str(page)]) == 0
    text = page.read_text()
    assert "&lt;b&gt;twice&lt;/b&gt;" in text
    assert "<b>twice" not in text
    assert "<svg" in text
    assert "script" not in text
    assert "What each failure cost" in text


def test_json_is_for_programs(served, twice, capsys):
    assert main(["report", twice, "--url", served.url, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert len(said["attempts"]) == 2
    assert said["goodput"]["down_seconds"] == pytest.approx(600, abs=3)


def test_a_run_that_is_not_there_is_said(served, capsys):
    assert main(["report", "nobody", "--url", served.url]) == 2
    assert "nobody" in capsys.readouterr().err


def test_a_series_as_one_line_shows_the_stall_the_gap_and_the_nan():
    points = [(step, 1.0) for step in range(640) if not 100 <= step < 120]
    points[300:301] = [(320, 9.0)]
    line, marks, span = spark([*points, (640, float("nan"))], [320])
    assert len(line) == 64 and line[31] == "█" and line[-1] == "×" and set(line[:9]) == {"▁"} and " " in line[9:12]
    assert marks.index("^") == 31
    assert span == "steps 0 to 640: 1 to 9, now nan"
    assert spark([(1, float("nan"))]) == [] and spark([(1, 2.0)]) == ["▁", "steps 1 to 1: 2 to 2, now 2"]
