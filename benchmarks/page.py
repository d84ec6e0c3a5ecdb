"""How the page holds up: a run of a million steps, and 16,384 ranks on 2,048 nodes. Prints what the server takes and what the browser takes.

python benchmarks/page.py [--steps 1000000] [--nodes 2048]     (two cores, some 3 minutes, 0.6 GB in a temporary folder)
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from holter.frame import Column, Frame
from holter_monitor.store.control import open_control
from holter_monitor.store.rolling import PIECE, Roller

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from collector import Collector, collector

METRICS = ("loss", "step_time_seconds", "tokens", "tokens_per_second")
RANKS_PER_NODE, HEAT_STEPS = 8, 120
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--nodes", type=int, default=2_048)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="holter-page-"))
    try:
        with collector(folder / "data", "--no-detection") as running:
            long, wide = running.new_run("long"), running.new_run("wide", world_size=arguments.nodes * RANKS_PER_NODE)
            fill_long(folder / "data" / "control.sqlite", long, arguments.steps)
            fill_wide(running, wide, arguments.nodes)
            report(running, long, wide, arguments)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def fill_long(database: Path, run: str, steps: int) -> None:
    """The summaries of a million steps, straight into the control store: the way of a frame is measured elsewhere."""
    at = time.time() - steps

    def rows(metric: str) -> Iterator[tuple[Any, ...]]:
        for step in range(1, steps + 1):
            value = 2 + 9 * step**-0.3 if metric == "loss" else 1.0 + (step % 997 == 0)
            yield (run, metric, "a1", step, at + step, 8, value, value * 0.99, value * 1.01, value, 0, 7, 0)

    with sqlite3.connect(database, timeout=60) as connection:
        connection.execute(
            "INSERT INTO attempts (run, attempt, number, started_at, state, world_size, first_step, last_step, mesh) VALUES (?,?,1,?,'running',8,1,?,'{}')",
            (run, "a1", at, steps),
        )
        connection.execute("UPDATE runs SET last_step = ?, state = 'running' WHERE id = ?", (steps, run))
        for metric in METRICS:
            connection.executemany(
                "INSERT INTO step_summaries (run, metric, attempt, step, at, count, mean, min, max, median, min_rank, max_rank, non_finite) "
                "VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
                rows(metric),
            )
    connection.close()
    control = open_control(f"sqlite:///{database}")
    roller = Roller()
    with control.write() as rolled:  # the blocks of steps, as the detection consumer writes them on its way
        for metric in METRICS:
            for step in range(1, steps + 1, PIECE):
                roller.roll(rolled, [{"run": run, "metric": metric, "attempt": "a1", "step": step}])
    control.close()


def fill_wide(running: Collector, run: str, nodes: int) -> None:
    """All ranks' compute time, a frame a node; rank 4,242 is slow."""
    noise = np.random.default_rng(7)
    steps = np.repeat(np.arange(1, HEAT_STEPS + 1), RANKS_PER_NODE)
    for node in range(nodes):
        ranks = np.tile(np.arange(node * RANKS_PER_NODE, (node + 1) * RANKS_PER_NODE, dtype=np.int32), HEAT_STEPS)
        values = (1 + 0.01 * noise.standard_normal(len(ranks)) + 0.2 * (ranks == 4_242)).astype("<f4")
        sent = Frame(run, "a1", f"node-{node:04}", f"b{node}", 1, time.time_ns(), ranks, steps, np.full(len(ranks), time.time_ns()))
        sent.metrics["compute_seconds"] = Column(values)
        assert running.send(sent).status_code == 200
    running.until(lambda: 'lag_frames{consumer="samples"} 0.0' in running.http.get("/metrics").text, 300)


def report(running: Collector, long: str, wide: str, arguments: argparse.Namespace) -> None:
    curves = {"metrics": ",".join(METRICS), "max_points": 1400}
    show(
        f"curves, {arguments.steps:,} steps × {len(METRICS)} metrics, first asked", *asked(running, f"runs/{long}/curves", curves, times=1)
    )
    show("the same again", *asked(running, f"runs/{long}/curves", curves))
    show("curves, zoomed to 10,000 steps", *asked(running, f"runs/{long}/curves", {**curves, "from_step": 400_000, "to_step": 410_000}))
    show(
        "sparkline of the list (newest 2,000 steps)",
        *asked(running, f"runs/{long}/curves", {"metrics": "loss", "from_step": arguments.steps - 2000}),
    )
    show(
        f"heat map, {arguments.nodes * RANKS_PER_NODE:,} ranks × {HEAT_STEPS} steps",
        *asked(running, f"runs/{wide}/heatmap", {"metric": "compute_seconds"}),
    )
    outliers = running.get(f"runs/{wide}/heatmap", metric="compute_seconds")["outliers"]
    print(f"  named: {[outlier['rank'] for outlier in outliers]}")
    browse(running.url, long, wide)


def asked(running: Collector, path: str, parameters: dict[str, Any], times: int = 3) -> tuple[float, int]:
    """Median seconds of an answer and its bytes."""
    return timed(lambda: len(running.http.get(f"/api/v1/{path}", params=parameters).content), times)


def timed(work: Callable[[], int], times: int) -> tuple[float, int]:
    seconds, size = [], 0
    for _ in range(times):
        started = time.perf_counter()
        size = work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), size


def show(what: str, seconds: float, size: int | None = None) -> None:
    print(f"  {what:<58} {seconds * 1000:8.0f} ms" + (f"  {size / 1024:8.0f} KiB" if size is not None else ""))


def browse(url: str, long: str, wide: str) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("  no Chromium: the browser's part was not measured")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(120_000)
        for what, place, ready in (
            ("page of the long run, from address to curves", f"#/runs/{long}", "section.chart canvas"),
            ("page of the ranks, from address to heat map", f"#/runs/{wide}/ranks", ".heat canvas[data-paint-ms]"),
        ):
            page.goto("about:blank")
            started = time.perf_counter()
            page.goto(f"{url}/{place}")
            page.wait_for_selector(ready)
            show(what, time.perf_counter() - started)
        show("from the heat map's answer to its pixels", since_answer(page, "/heatmap", "heat painted"))
        show("of it filling the canvas", float(page.locator(".heat canvas").get_attribute("data-paint-ms") or "nan") / 1000)
        page.goto(f"{url}/#/runs/{long}")
        page.wait_for_selector("section.chart canvas")
        show("zooming the long run in by the keyboard, key to curves", statistics.median(zoomed(page) for _ in range(5)))
        show("from the curves' answer to their pixels", since_answer(page, "/curves", "curves painted"))
        browser.close()


def since_answer(page: Any, path: str, mark: str) -> float:
    """Seconds from the last byte of the newest answer to the end of what the page did with it, by the browser's own clock."""
    spent: float = page.evaluate(
        """([path, mark]) => {
        const answers = performance.getEntriesByType("resource").filter((entry) => entry.name.includes(path));
        return performance.getEntriesByName(mark).at(-1).startTime - answers.at(-1).responseEnd;
    }""",
        [path, mark],
    )
    return spent / 1000


def zoomed(page: Any) -> float:
    """Seconds from "+" to the curves of the new window."""
    page.locator(".plot").first.focus()
    before = page.evaluate("performance.getEntriesByName('curves painted').length")
    started = time.perf_counter()
    page.keyboard.press("+")
    page.wait_for_function("(before) => performance.getEntriesByName('curves painted').length > before", arg=before)
    return time.perf_counter() - started


if __name__ == "__main__":
    raise SystemExit(main())
