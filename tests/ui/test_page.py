"""The page in a real browser against a real collector that replayed real traces."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from collector import collector, frame
from holter.cli import main
from holter.tensors import Layout, Tensor
from playwright.sync_api import expect
from ui.conftest import DESKTOP, PHONE, XSS_METRIC, XSS_PROJECT, XSS_RUN, Stage, Window, window

pytestmark = pytest.mark.browser
TOKEN = [sys.executable, "-m", "holter.cli", "token", "create", "grace"]


def plot(page: Any, title: str) -> Any:
    return page.locator("section.chart", has=page.locator("h3", has_text=re.compile(f"^{title}$")))


def test_from_the_list_to_a_silenced_incident(at: Window, stage: Stage) -> None:
    page = at.open("")
    row = page.get_by_role("link", name=re.compile("3b-weka"))
    expect(row).to_contain_text("critical")
    expect(row.locator("svg path")).to_have_attribute("d", re.compile(r"M.*L"))
    row.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("3b-weka")
    expect(plot(page, "Loss").locator("canvas")).to_be_visible()
    zoom(page, "Throughput", 0.4, 0.5)
    expect(page.get_by_role("button", name="Leave the zoom")).to_be_visible()
    page.get_by_role("link", name=re.compile("^critical: ")).first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("#/incidents/"))
    expect(page.get_by_role("heading", level=1)).to_contain_text("wall time lost")
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.locator(".head .state")).to_have_text("acknowledged")
    expect(page.get_by_role("button", name="Acknowledge")).to_be_disabled()
    page.get_by_label("Note").fill("moved the data <b>to local disk</b>")
    page.get_by_role("button", name="Add note").click()
    expect(page.locator(".history")).to_contain_text("moved the data <b>to local disk</b>")
    silence(page, stage)


def zoom(page: Any, title: str, start: float, end: float) -> None:
    area = plot(page, title).locator(".u-over")
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + start * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + end * box["width"], middle, steps=6)
    page.mouse.up()


def silence(page: Any, stage: Stage) -> None:
    page.get_by_role("button", name="Silence …").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill("known, until Monday")
    dialog.get_by_role("button", name="Silence").click()
    expect(page.get_by_role("status").filter(has_text="Silenced")).to_be_visible()
    (kept,) = stage.collector.get("silences")["items"]
    assert kept["matchers"] == {"project": "smollm3", "run": "3b-weka", "kind": "throughput_drop"}


def test_zoom_asks_the_server_for_the_window_and_is_linked(at: Window, stage: Stage) -> None:
    page = at.open(f"#/runs/{stage.weka}")
    expect(plot(page, "Loss").locator("canvas")).to_be_visible()
    with page.expect_response(lambda answer: "/curves" in answer.url and "from_step" in answer.url) as caught:
        zoom(page, "Loss", 0.5, 0.6)
    answer = caught.value.json()
    assert 340 <= answer["from_step"] <= 360 and 410 <= answer["to_step"] <= 430
    expect(page.get_by_role("button", name="Leave the zoom")).to_be_visible()
    plot(page, "Gradient norm").locator(".plot").focus()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Leave the zoom")).to_be_hidden()


@pytest.mark.parametrize(("axis", "word"), [("Tokens", "tokens"), ("Time", ":"), ("Step", "step")])
def test_the_axis_turns_to_tokens_and_time(at: Window, stage: Stage, axis: str, word: str) -> None:
    page = at.open(f"#/runs/{stage.weka}")
    expect(plot(page, "Loss").locator("canvas")).to_be_visible()
    page.get_by_role("button", name=axis, exact=True).click()
    plot(page, "Loss").locator(".plot").focus()
    page.keyboard.press("ArrowLeft")
    expect(plot(page, "Loss").locator(".at")).to_contain_text(word)


def test_new_steps_appear_by_themselves_and_a_zoomed_view_stays(at: Window, stage: Stage) -> None:
    run = stage.collector.new_run("live", "smollm3")
    send = lambda first, last: stage.collector.http.post(  # noqa: E731
        f"/api/v1/runs/{run}/points", json=[{"step": step, "rank": 0, "loss": 3 - step / 1000} for step in range(first, last)]
    )
    send(1, 101)
    stage.collector.until(lambda: stage.collector.get(f"runs/{run}")["last_step"] == 100)
    page = at.open(f"#/runs/{run}")
    step = page.locator(".facts div", has_text="Step").first.locator("dd")
    expect(step).to_have_text("100")
    expect(page.locator("#live")).to_have_text("live")
    send(101, 201)
    expect(step).to_have_text("200")
    zoom(page, "Loss", 0.2, 0.4)
    expect(page.get_by_role("button", name="Leave the zoom")).to_be_visible()
    page.evaluate(
        "window.asked = []; const real = fetch; window.fetch = (url, ...more) => (asked.push(String(url)), real(url, ...more)); 0"
    )
    send(201, 301)
    expect(step).to_have_text("300")
    stage.collector.until(lambda: page.evaluate("asked.some((url) => url.includes('/curves'))"))
    windows = page.evaluate("asked.filter((url) => url.includes('/curves'))")
    assert all("from_step=" in url and "to_step=" in url for url in windows), windows


def test_names_from_strangers_stay_text(at: Window, stage: Stage) -> None:
    page = at.open("")
    expect(page.get_by_text(XSS_RUN)).to_be_visible()
    expect(page.get_by_text(XSS_PROJECT)).to_be_visible()
    page.get_by_text(XSS_RUN).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(XSS_RUN)
    page.get_by_role("link", name="Ranks").click()
    page.get_by_label("Metric").select_option(XSS_METRIC)
    expect(page.locator(".heat canvas")).to_be_visible()
    at.open(f"#/runs/{stage.hostile}/ranks/0")
    expect(page.get_by_role("heading", name=XSS_METRIC)).to_be_visible()
    assert page.evaluate("window.owned") is None


def test_the_heat_map_names_the_straggler_and_opens_it_by_keyboard(at: Window, stage: Stage) -> None:
    page = at.open(f"#/runs/{stage.weka}/ranks")
    expect(page.get_by_role("heading", name="One stands apart")).to_be_visible()
    expect(page.get_by_role("link", name=re.compile("rank 5"))).to_be_visible()
    page.locator(".heat canvas").focus()
    for _ in range(5):
        page.keyboard.press("ArrowDown")
    expect(page.locator(".heat .read")).to_contain_text("rank 5")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Rank 5")).to_be_visible()
    expect(plot(page, "gpu temperature").locator("canvas")).to_be_visible()


def test_runs_are_compared_at_equal_tokens(at: Window, stage: Stage) -> None:
    page = at.open("#/compare?runs=" + ",".join(stage.spikes[name] for name in ("Recoverable spikes", "Non recoverable spikes")))
    expect(plot(page, "Difference to the base, smoothed").locator("canvas")).to_be_visible()
    expect(plot(page, "Difference to the base, smoothed").locator(".legend")).to_contain_text("non-recoverable-spikes")


PLACES = [
    "",
    "#/incidents",
    "#/compare",
    "#/runs/{weka}",
    "#/runs/{weka}/ranks",
    "#/runs/{weka}/ranks/5",
    "#/runs/{weka}/consistency",
    "#/silences",
    "#/goodput",
    "#/nowhere",
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_no_page_errs_or_overflows(browser: Any, stage: Stage, size: dict[str, int], scheme: str) -> None:
    made = window(browser, stage, size=size, scheme=scheme)
    incident = f"#/incidents/{stage.incident(stage.weka)['id']}"
    for place in [*PLACES, incident]:
        page = made.open(place.format(weka=stage.weka))
        page.wait_for_selector("main .view, main .empty")
        page.wait_for_load_state("load")
        page.wait_for_timeout(250)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{place} is wider than the screen"
        unnamed = page.evaluate(
            "[...document.querySelectorAll('button, a, select, input')].filter((e) => !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).length"
        )
        assert unnamed == 0, f"{place} has controls without a name"
    made.page.context.close()
    assert made.sins == []


def test_the_policy_forbids_what_the_page_does_not_need(stage: Stage, at: Window) -> None:
    headers = stage.collector.http.get("/").headers
    assert "default-src 'none'" in headers["content-security-policy"] and "unsafe" not in headers["content-security-policy"]
    page = at.open("")
    page.evaluate("const s = document.createElement('script'); s.textContent = 'window.owned = 1'; document.head.append(s)")
    assert page.evaluate("window.owned") is None
    assert any("Content Security Policy" in sin for sin in at.sins)
    at.sins.clear()


def test_a_collector_that_comes_back_is_noticed(at: Window, stage: Stage) -> None:
    """The stream breaks; the mark says so, and says when it is live again."""
    page = at.page
    page.route("**/api/v1/stream", lambda route: route.abort())
    at.open("")
    expect(page.locator("#live")).to_have_text("reconnecting")
    page.unroute("**/api/v1/stream")
    expect(page.locator("#live")).to_have_text("live")
    at.sins[:] = [sin for sin in at.sins if "ERR_FAILED" not in sin]


def test_the_heat_map_of_a_large_fleet_paints_at_once(at: Window, stage: Stage) -> None:
    """2,048 rows × 120 columns, the size of 16,384 ranks on nodes of eight: drawn by the page's own code, once the answer is there."""
    page = at.open("")
    page.wait_for_selector(".list")
    spent = page.evaluate(
        """async () => {
        const { HeatMap } = await import("/ui/heat.js");
        const rows = 2048, columns = 120, values = new Float32Array(rows * columns).map((_, i) => 1 + 0.02 * Math.sin(i));
        let text = ""; for (const byte of new Uint8Array(values.buffer)) text += String.fromCharCode(byte);
        const map = new HeatMap(new AbortController().signal, { format: String, open() {} });
        document.body.append(map.box);
        const answer = { values: btoa(text),
          steps: Array.from({ length: columns }, (_, i) => i), by: "node",
          rows: Array.from({ length: rows }, (_, i) => ({ name: `n${i}`, node: `n${i}`, rank: null })),
          center: new Array(columns).fill(1), outliers: [] };
        const started = performance.now(); map.set(answer); return [performance.now() - started, map.canvas.height];
    }"""
    )
    assert spent[1] == 2048
    print(f"painted in {spent[0]:.0f} ms")


def test_the_files_of_the_page_come_with_their_licences(stage: Stage) -> None:
    http = stage.collector.http
    assert "MIT" in http.get("/ui/vendor/uPlot.LICENSE").text
    for path in ("/", "/ui/app.js", "/ui/style.css", "/ui/icon.svg"):
        assert http.get(path).status_code == 200
    assert http.get("/ui/../__init__.py").status_code == 404
    assert http.get("/ui/%2e%2e/__init__.py").status_code == 404


def test_the_link_in_a_message_opens_the_incident(at: Window, stage: Stage) -> None:
    incident = stage.incident(stage.weka)
    page = at.open(f"incidents/{incident['id']}")
    expect(page.get_by_role("heading", level=1)).to_contain_text(incident["summary"][:30], ignore_case=True)


def test_what_happens_while_the_charts_are_fetched_is_not_missed(at: Window, stage: Stage) -> None:
    incident = stage.incident(stage.weka)
    at.page.add_init_script(
        "const real = window.fetch; window.fetch = async (url, ...more) => {"
        " if (/stacks|series|curves|evidence/.test(url)) await new Promise((done) => setTimeout(done, 4000)); return real(url, ...more); };"
    )
    page = at.open(f"#/incidents/{incident['id']}")
    expect(page.locator(".history")).to_contain_text("opened")
    page.wait_for_timeout(1000)  # the stream is open, the charts are not there yet
    answer = stage.collector.http.post(f"/api/v1/incidents/{incident['id']}/note", json={"note": "in the meantime"})
    assert answer.status_code == 200
    expect(page.locator(".history")).to_contain_text("in the meantime")


def test_the_start_up_table_says_how_the_tensors_lie(at: Window, stage: Stage) -> None:
    """The layout as `run.watch` puts it on record (`holter.tensors.Layout.to_json`)."""
    shard, whole = (
        Tensor("layers.0.up.weight", "float32", (128, 64), {"tp": "S0"}, "dtensor"),
        Tensor("norm.weight", "float32", (64,), {"tp": "R"}, "dtensor"),
    )
    tensors = (shard, replace(shard, name="layers.1.up.weight"), whole, replace(whole, name="<b>odd</b>", axes={"tp": "?"}))
    table = Layout(tensors, 1.0, ("tp",), {"dp": 2, "tp": 2}, ()).to_json()
    run = stage.collector.new_run("watched", "smollm3", world_size=4)
    event = {"event": "watch", "rank": 0, "step": 0, "time_ns": 1, "attrs": {"layout": "00", "mesh": {"tp": [0, 2]}, "table": table}}
    assert stage.collector.send(frame(run, 1, boot=run, events=[event])).status_code == 200
    stage.collector.until(lambda: stage.collector.get(f"runs/{run}/events", event="watch")["items"])
    page = at.open(f"#/runs/{run}/consistency")
    expect(page.get_by_role("row").filter(has_text="layers.*.up.weight")).to_contain_text("sharded, dimension 0")
    expect(page.get_by_role("row").filter(has_text="<b>odd</b>")).to_contain_text("unknown")
    expect(page.get_by_text("4 tensors on a mesh of dp 2 × tp 2")).to_be_visible()


def test_a_collector_with_tokens_asks_for_one_and_keeps_it_in_the_tab(browser: Any, tmp_path: Path) -> None:
    with collector(tmp_path / "data") as running:
        running.new_run("guarded", "smollm3")
        assert main(["token", "create", "ada", "--scope", "read", "--data", str(tmp_path / "data"), "--json"]) == 0
        running.until(lambda: running.http.get("/api/v1/runs").status_code == 401)
        context = browser.new_context()
        page = context.new_page()
        page.goto(running.url)
        expect(page.get_by_role("dialog")).to_contain_text("asks for a token")
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Go on").click()
        expect(page.get_by_label("Token")).to_be_empty()
        made = subprocess.run([*TOKEN, "--scope", "read", "--data", tmp_path / "data"], capture_output=True, text=True, check=True)
        page.get_by_label("Token").fill(made.stdout.strip())
        page.get_by_role("button", name="Go on").click()
        expect(page.get_by_role("link", name=re.compile("guarded"))).to_be_visible()
        expect(page.locator("#live")).to_have_text("live")
        assert page.evaluate("localStorage.length + document.cookie.length") == 0
        context.close()


def test_a_live_update_takes_neither_the_words_nor_the_place_of_the_keyboard(at: Window, stage: Stage) -> None:
    incident = stage.incident(stage.weka)
    page = at.open(f"#/incidents/{incident['id']}")
    page.get_by_label("Note").fill("half a sentence")
    page.get_by_label("Note").focus()
    answer = stage.collector.http.post(f"/api/v1/incidents/{incident['id']}/note", json={"note": "from a colleague"})
    assert answer.status_code == 200
    expect(page.locator(".history")).to_contain_text("from a colleague")
    expect(page.get_by_label("Note")).to_have_value("half a sentence")
    expect(page.get_by_label("Note")).to_be_focused()
