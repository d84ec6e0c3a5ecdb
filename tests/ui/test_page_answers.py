"""What a visitor changes or takes along: silences, links, the keyboard's help, fingers on a chart."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect
from ui.conftest import PHONE, Stage, Window, window
from ui.test_page import plot, zoom

pytestmark = pytest.mark.browser


def test_a_maintenance_window_is_made_listed_and_ended(at: Window, stage: Stage) -> None:
    page = at.open("#/silences")
    page.get_by_role("button", name="New silence …").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Run").fill("maintained-*")
    dialog.get_by_label("From").fill("2099-01-02T03:04")
    dialog.get_by_label("Reason").fill("new switches <b>everywhere</b>")
    dialog.get_by_label("Author").fill("ada")
    dialog.get_by_role("button", name="Silence").click()
    row = page.get_by_role("listitem").filter(has_text="new switches <b>everywhere</b>")
    expect(page.get_by_role("heading", name="Maintenance windows to come")).to_be_visible()
    expect(row).to_contain_text("maintained-*")
    (kept,) = [one for one in stage.collector.get("silences")["items"] if one["matchers"] == {"run": "maintained-*"}]
    assert kept["author"] == "ada" and kept["starts"].startswith("2099-01-0")
    row.get_by_role("button").click()
    expect(row).to_have_count(0)
    assert kept["id"] not in [one["id"] for one in stage.collector.get("silences")["items"]]


def test_a_silence_without_a_matcher_is_refused_with_the_collectors_words(at: Window) -> None:
    page = at.open("#/silences")
    page.get_by_role("button", name="New silence …").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill("everything")
    dialog.get_by_role("button", name="Silence").click()
    expect(page.get_by_role("status").filter(has_text=re.compile("matchers|fit"))).to_be_visible()
    expect(dialog).to_be_visible()
    at.sins[:] = [sin for sin in at.sins if "422" not in sin]


def test_a_zoom_is_in_the_address_and_the_address_brings_it_back(at: Window, stage: Stage) -> None:
    page = at.open(f"#/runs/{stage.weka}?axis=tokens&from=300&to=340")
    expect(page.get_by_role("button", name="Leave the zoom")).to_be_visible()
    expect(page.get_by_role("button", name="Tokens", exact=True)).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Leave the zoom").click()
    expect(page).to_have_url(re.compile(r"axis=tokens$"))
    zoom(page, "Loss", 0.5, 0.6)
    expect(page).to_have_url(re.compile(r"axis=tokens&from=\d+&to=\d+$"))
    page.reload()
    expect(page.get_by_role("button", name="Leave the zoom")).to_be_visible()


@pytest.mark.parametrize("query", ["from=x&to=9", "from=9&to=3", "axis=<b>&newest=-1", "from=1e9&to=2e9"])
def test_an_address_of_nonsense_shows_the_whole_run(at: Window, stage: Stage, query: str) -> None:
    page = at.open(f"#/runs/{stage.weka}?{query}")
    expect(plot(page, "Loss").locator("canvas")).to_be_visible()
    expect(page.get_by_role("button", name="Leave the zoom")).to_be_hidden()


def test_the_question_mark_tells_the_keys_and_the_slash_finds_the_search(at: Window) -> None:
    page = at.open("")
    page.wait_for_selector(".list")
    page.keyboard.press("/")
    expect(page.get_by_label("Find a run")).to_be_focused()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_label("Find a run").evaluate("(input) => input.blur()")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_contain_text("leave the zoom")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


PINCH = """([box, spots]) => {
    const over = box.querySelector('.u-over'), place = over.getBoundingClientRect();
    const send = (name, id, share) => over.dispatchEvent(new PointerEvent(name, { pointerId: id, pointerType: 'touch', bubbles: true,
        clientX: place.left + share * place.width, clientY: place.top + 20 }));
    for (const [name, id, share] of spots) send(name, id, share);
}"""


def test_two_fingers_zoom_and_two_taps_leave_the_zoom(browser: Any, stage: Stage) -> None:
    made = window(browser, stage, size=PHONE)
    page = made.open(f"#/runs/{stage.weka}")
    expect(plot(page, "Loss").locator("canvas")).to_be_visible()
    box = plot(page, "Loss").element_handle()
    apart = [("pointerdown", 1, 0.4), ("pointerdown", 2, 0.6), ("pointermove", 1, 0.1), ("pointermove", 2, 0.9)]
    page.evaluate(PINCH, [box, [*apart, ("pointerup", 1, 0.1), ("pointerup", 2, 0.9)]])
    expect(page.get_by_role("button", name="Leave the zoom")).to_be_visible()
    start, end = (int(found) for found in re.findall(r"(?:from|to)=(\d+)", page.url))
    assert 240 < start < 270 and 420 < end < 450, "what lay under the fingers, 40 and 60 % of 700 steps, now lies at 10 and 90 %"
    page.wait_for_timeout(400)
    page.evaluate(PINCH, [box, [(name, 3, 0.5) for name in ("pointerdown", "pointerup", "pointerdown", "pointerup")]])
    expect(page.get_by_role("button", name="Leave the zoom")).to_be_hidden()
    made.page.context.close()
    assert made.sins == []


def test_another_base_turns_the_comparison(at: Window, stage: Stage) -> None:
    page = at.open("#/compare?runs=" + ",".join(stage.spikes[name] for name in ("Recoverable spikes", "Non recoverable spikes")))
    sick = page.get_by_role("row").filter(has_text="non-recoverable-spikes")
    expect(sick).to_contain_text(re.compile(r"\+1\d\d %"))
    page.get_by_role("button", name="Make non-recoverable-spikes the base").click()
    expect(sick).to_contain_text("the base")
    expect(page).to_have_url(re.compile(f"runs={stage.spikes['Non recoverable spikes']}"))


def test_a_live_update_does_not_move_the_page(at: Window, stage: Stage) -> None:
    run = stage.collector.new_run("scrolled", "smollm3")
    send = lambda first, last: stage.collector.http.post(  # noqa: E731
        f"/api/v1/runs/{run}/points", json=[{"step": step, "rank": 0, "loss": 3 - step / 1000} for step in range(first, last)]
    )
    send(1, 101)
    page = at.open(f"#/runs/{run}")
    step = page.locator(".facts div", has_text="Step").first.locator("dd")
    expect(step).to_have_text("100")
    expect(page.locator("#live")).to_have_text("live")
    page.evaluate("scrollTo(0, 300)")
    before = page.evaluate("[scrollY, document.documentElement.scrollHeight]")
    send(101, 201)
    expect(step).to_have_text("200")
    assert page.evaluate("[scrollY, document.documentElement.scrollHeight]") == before
