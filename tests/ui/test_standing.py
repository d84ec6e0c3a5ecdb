"""Where the ranks stand: asked for and shown, on a run's page and on a hang's."""

from __future__ import annotations

import time

import pytest
from collector import frame
from playwright.sync_api import expect
from ui.conftest import Stage, Window

pytestmark = pytest.mark.browser
REDUCE, READ = "all_reduce (torch/distributed/distributed_c10d.py:2810)\nstep (train.py:40)", "<b>read</b> (/data/loader.py:12)"


def told(word: str, rank: int | None, **attrs: object) -> dict[str, object]:
    stacks = [{"ranks": [0, 1, 2], "stack": REDUCE}, {"ranks": [3], "stack": READ}]
    return {"event": word, "rank": rank, "step": 5, "time_ns": time.time_ns(), "attrs": {**attrs, "stacks": stacks}}


def test_stacks_are_asked_for_and_equal_ones_are_one_line(at: Window, stage: Stage) -> None:
    run = stage.collector.new_run("standing", "smollm3", world_size=4)
    for seq in range(1, 6):
        stage.collector.send(frame(run, seq, ranks=(0, 1, 2, 3), boot="standing"))
    stage.collector.until(lambda: stage.collector.get(f"runs/{run}/agents")["items"])
    page = at.open(f"#/runs/{run}")
    card = page.locator("section.card", has_text="Where the ranks stand")
    expect(card).to_contain_text("No stacks were taken yet")
    card.get_by_role("button", name="Take stacks").click()
    expect(card).to_contain_text("No answer yet from n1")
    request = stage.collector.get(f"runs/{run}/stacks")["request"]["id"]
    stage.collector.send(frame(run, 6, ranks=(), boot="standing", events=[told("stacks", None, request=request)]))
    expect(card).to_contain_text("Ranks 0-2 in all_reduce (distributed_c10d.py:2810), rank 3 in <b>read</b> (loader.py:12)")
    expect(card.locator("details[open] pre")).to_have_text(READ)
    card.get_by_text("Ranks 0–2 in").click()
    expect(card.locator("details[open] pre")).to_have_count(2)
    card.get_by_role("button", name="Take stacks").click()
    expect(page.get_by_role("status").filter(has_text="just asked for")).to_be_visible()
    at.sins[:] = [sin for sin in at.sins if "429" not in sin]


def test_a_hang_shows_its_stacks_and_no_raw_json(at: Window, stage: Stage) -> None:
    run = stage.collector.new_run("stuck", "smollm3", world_size=4)
    for seq in range(1, 6):
        stage.collector.send(frame(run, seq, ranks=(0, 1, 2, 3), boot="stuck"))
    stage.collector.send(frame(run, 6, ranks=(), boot="stuck", events=[told("rank_hung", 3, seconds=180.0, phase="step")]))
    (incident,) = stage.collector.until(lambda: stage.collector.get("incidents", run=run, kind="hang")["items"])
    page = at.open(f"#/incidents/{incident['id']}")
    expect(page.locator("section.card", has_text="Where the ranks stand").locator("details[open] pre")).to_have_text(READ)
    expect(page.locator("section.card", has_text="Evidence")).not_to_contain_text('{"ranks"')
    expect(page.locator("section.card", has_text="Why, most likely first")).to_contain_text("standing elsewhere")
