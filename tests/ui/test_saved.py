"""The checkpoints of a run, on its page."""

from __future__ import annotations

import time

import pytest
from collector import frame
from playwright.sync_api import expect
from ui.conftest import Stage, Window

pytestmark = pytest.mark.browser


def told(**attrs: object) -> dict[str, object]:
    return {
        "event": "checkpoint_files",
        "rank": 0,
        "step": None,
        "time_ns": time.time_ns(),
        "attrs": {"folder": "/fsx/<b>ckpt</b>", **attrs},
    }


def test_what_there_is_to_resume_from_stands_on_the_page_and_follows(at: Window, stage: Stage) -> None:
    run, now = stage.collector.new_run("saved", "smollm3"), time.time()
    names = [
        ("step_1000", 1000, "moved", "verified"),
        ("step_2000", 2000, "complete", "verified"),
        ("step_3000", 3000, "complete", "absent"),
    ]
    items = [[name, step, 24_000_000_000, state, now - 7200 * (4 - step / 1000), copy] for name, step, state, copy in names]
    stage.collector.send(frame(run, 1, boot="saved"))
    page = at.open(f"#/runs/{run}")
    card = page.locator("section.card", has_text="Checkpoints")
    expect(card).to_be_hidden()
    stage.collector.send(frame(run, 2, boot="saved", events=[told(items=items, copy="s3://b/run", keep=2, free=30_000_000_000)]))
    expect(card).to_contain_text("/fsx/<b>ckpt</b>, copied to s3://b/run")
    expect(card.locator("dl")).to_contain_text("Newest wholestep_3000 2 h ago")
    expect(card.locator("dd.bad")).to_have_text("step_2000")
    expect(card.locator("dl")).to_contain_text("room for 1 more")
    card.locator("summary").click()
    expect(card.locator("tbody tr").first).to_contain_text("step_3000")
    expect(card.locator("tbody tr", has_text="goes next")).to_contain_text("step_2000")
    stage.collector.send(frame(run, 3, boot="saved", events=[told(problem="TimeoutError: no answer")]))
    expect(card).to_contain_text("/fsx/<b>ckpt</b> does not answer: TimeoutError: no answer")
