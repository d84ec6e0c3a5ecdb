"""A collector with real traces in it, and a browser that reports whatever a page should not do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from collector import collector
from ui import replay

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
XSS_PROJECT, XSS_RUN, XSS_METRIC = "<img src=x onerror=window.owned=1>", '"><script>window.owned=1</script>', "<svg onload=window.owned=1>"


@dataclass
class Stage:
    """The collector and what was put into it."""

    collector: Any
    weka: str
    spikes: dict[str, str]
    hostile: str

    @property
    def url(self) -> str:
        return str(self.collector.url)

    def incident(self, run: str) -> dict[str, Any]:
        return self.collector.until(lambda: self.collector.get("incidents", run=run)["items"], 60)[-1]


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with collector(tmp_path_factory.mktemp("page") / "data") as running:
        hostile = running.new_run(XSS_RUN, XSS_PROJECT)
        replay.post(running, hostile, [{"step": step, "rank": 0, "loss": 3 - step / 100, XSS_METRIC: 1.0} for step in range(40)])
        made = Stage(running, replay.throughput(running), replay.losses(running), hostile)
        for run in (made.weka, made.spikes["Non recoverable spikes"]):
            made.incident(run)
        running.until(lambda: running.get(f"runs/{made.weka}/curves", metrics="loss")["to_step"] == 700, 60)
        yield made


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("Chromium is not installed: the page was not driven")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=20_000)  # a loaded machine is slow, not wrong

    with sync_playwright() as play:
        running = play.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield running
        running.close()


@dataclass
class Window:
    """A page with its record of sins: console errors, requests to anybody else, dialogs."""

    page: Any
    url: str
    sins: list[str] = field(default_factory=list)

    def open(self, place: str) -> Any:
        self.page.goto("about:blank")
        self.page.goto(f"{self.url}/{place}")
        return self.page


def window(browser: Any, stage: Stage, *, size: dict[str, int] = DESKTOP, scheme: str = "light") -> Window:
    context = browser.new_context(viewport=size, color_scheme=scheme)
    made = Window(context.new_page(), stage.url)
    made.page.set_default_timeout(30_000)
    made.page.on("console", lambda message: made.sins.append(message.text) if message.type in ("error", "warning") else None)
    made.page.on("pageerror", lambda error: made.sins.append(str(error)))
    made.page.on("dialog", lambda dialog: (made.sins.append(f"dialog {dialog.message}"), dialog.dismiss()))
    made.page.on("response", lambda answer: made.sins.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    made.page.on("request", lambda request: None if request.url.startswith((stage.url, "blob:")) else made.sins.append(request.url))
    return made


@pytest.fixture
def at(browser: Any, stage: Stage) -> Iterator[Window]:
    made = window(browser, stage)
    yield made
    made.page.context.close()
    assert made.sins == []
