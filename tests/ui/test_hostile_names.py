"""Names and texts from strangers on every page of a phone: nothing runs, nothing is fetched, nothing pushes the page over its edge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from collector import collector, frame
from ui.conftest import PHONE, window

pytestmark = pytest.mark.browser
SCRIPT = '"><script>window.owned=1</script><img src=//evil.example/x onerror=window.owned=1>{{7*7}}${7*7}'
OVERRIDE = "\u202egnp.exe\u2066\u200f\u200b\ufeff"
"""Turns the reading direction around and never turns it back; marks that nobody sees."""
FLOOD = "z" + "\u0335\u0301\u0322" * 60
LONG = "W" * 200
TEXT = (SCRIPT + OVERRIDE + "\u05e9\u05dc\u05d5\u05dd " + FLOOD + "\x1b[31m\r\n" + "W" * 9_000)[:10_000]


@dataclass
class Stage:
    collector: Any
    runs: dict[str, str]
    incidents: list[str]

    @property
    def url(self) -> str:
        return str(self.collector.url)


def live(running: Any, run: str, node: str, metrics: list[str]) -> None:
    """A run that starts, logs a NaN, hangs and fails, each time in a stranger's words."""

    def event(word: str, **attrs: Any) -> dict[str, Any]:
        return {"event": word, "rank": 0, "step": 20, "time_ns": 1, "attrs": attrs}

    begun = event(
        "rank_started",
        host=TEXT,
        gpu=TEXT,
        config={SCRIPT: TEXT},
        versions={"torch": TEXT},
        world_size=2,
        mesh={"dp": 0},
        local_rank=0,
        pid=1,
    )
    for seq in range(30):
        values = dict.fromkeys(metrics, 1.0) | {"loss": float("nan") if seq == 20 else 2.0}
        events = {
            0: [begun],
            15: [event(SCRIPT[:190], name=TEXT), event("stage", name=TEXT), event("checkpoint", path=TEXT)],
            25: [event("rank_hung", seconds=99.0, phase=TEXT, stacks=[{"ranks": [0, 1], "stack": TEXT}])],
            29: [event("rank_failed", type=SCRIPT, message=TEXT)],
        }.get(seq, [])
        answer = running.send(frame(run, seq, ranks=(0, 1), node=node, boot=run, attempt=node, metrics=values, events=events))
        assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with collector(tmp_path_factory.mktemp("hostile") / "data") as running:
        runs = {}
        for word, name in (("script", SCRIPT), ("long", LONG), ("flood", FLOOD)):
            runs[word] = running.new_run(name, name, world_size=2, config={name: TEXT.replace("\x00", "")})
            live(running, runs[word], name, [name, f"update_ratio.{name}"[:200]])
        found = running.until(
            lambda: {each["run"] for each in running.get("incidents")["items"]} == set(runs.values()) and running.get("incidents")
        )
        incidents = [each["id"] for each in found["items"]]
        for incident in incidents:
            assert running.http.post(f"/api/v1/incidents/{incident}/note", json={"note": TEXT}).status_code == 200
        silence = {"matchers": {"kind": "never", "run": SCRIPT}, "author": SCRIPT, "reason": TEXT, "ends": "2999-01-01T00:00:00Z"}
        assert running.http.post("/api/v1/silences", json=silence).status_code == 201
        yield Stage(running, runs, incidents)


def test_nothing_runs_and_no_page_is_pushed_over_its_edge(browser: Any, hostile: Stage) -> None:
    made = window(browser, hostile, size=PHONE)
    places = ["", "#/incidents", "#/silences", "#/compare?runs=" + ",".join(hostile.runs.values())]
    for run in hostile.runs.values():
        places += [f"#/runs/{run}", f"#/runs/{run}/ranks", f"#/runs/{run}/ranks/0", f"#/runs/{run}/consistency"]
    places += [f"#/incidents/{incident}" for incident in hostile.incidents]
    wide = []
    for place in places:
        page = made.open(place)
        page.wait_for_selector("main .view, main .empty")
        page.wait_for_load_state("load")
        page.wait_for_timeout(200)
        if not page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
            wide.append((place, page.evaluate(WIDEST)))
        assert page.evaluate("window.owned") is None, place
        assert page.evaluate("document.querySelectorAll('main script, main img[src*=evil]').length") == 0, place
    made.page.context.close()
    assert made.sins == []
    assert wide == [], "\n".join(map(str, wide))


WIDEST = """() => [...document.querySelectorAll('body *')].filter((e) => !e.closest('.table, pre') && e.getBoundingClientRect().right > innerWidth + 1)
    .map((e) => `${e.tagName}.${e.className} ${Math.round(e.getBoundingClientRect().right)}`).slice(-3)"""


def test_a_mark_that_turns_the_text_around_stays_in_its_own_words(browser: Any, hostile: Stage) -> None:
    """The override must not reach what stands beside it: each stranger's text is isolated."""
    made = window(browser, hostile)
    page = made.open(f"#/incidents/{hostile.incidents[0]}")
    page.wait_for_selector("main .view")
    turned = page.evaluate(TURNED)
    made.page.context.close()
    assert turned == []


TURNED = """() => { const walk = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT); const found = [];
    while (walk.nextNode()) { const mark = walk.currentNode.data.search(/[\\u202a-\\u202e\\u2066-\\u2069]/);
      if (mark < 0) continue;
      const style = getComputedStyle(walk.currentNode.parentElement);
      if (!/isolate|plaintext/.test(style.unicodeBidi)) found.push(walk.currentNode.parentElement.outerHTML.slice(0, 80)); }
    return found; }"""
