"""Every PromQL query of the dashboards, and the rules, on a real Prometheus that scraped a real collector; its alerts in a real Alertmanager."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from collector import collector, frame

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(*words: str | Path) -> Iterator[None]:
    running = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        running.terminate()
        running.wait(20)


def until(question: Any, seconds: float = 40) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if answer := question():
                return answer
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s")


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Prometheus with our configuration, its targets and its pace changed: it scrapes a collector that has a sick run."""
    binaries = [shutil.which(name) for name in ("prometheus", "prometheus-alertmanager")]
    if None in binaries:
        pytest.skip("prometheus or prometheus-alertmanager is not installed: no PromQL query was tried")
    folder, ports = tmp_path_factory.mktemp("prometheus"), (free_port(), free_port())
    with ExitStack() as stack:
        running = stack.enter_context(collector(folder / "data"))
        _configure(folder, running.url.removeprefix("http://"), ports[1])
        where = [f"--config.file={ROOT / 'alerts' / 'alertmanager.yml'}", f"--storage.path={folder / 'alerts'}"]
        stack.enter_context(process(str(binaries[1]), *where, f"--web.listen-address=127.0.0.1:{ports[1]}", "--cluster.listen-address="))
        until(lambda: httpx.get(f"http://127.0.0.1:{ports[1]}/-/ready").status_code == 200)
        where = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
        where.append("--rules.alert.resend-delay=1s")  # what fires before Alertmanager is discovered would wait for a minute
        stack.enter_context(process(str(binaries[0]), *where, f"--web.listen-address=127.0.0.1:{ports[0]}"))
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{ports[0]}", timeout=30))
        client.alertmanager = f"http://127.0.0.1:{ports[1]}"  # type: ignore[attr-defined]
        _train(running, client)
        yield client


def _configure(folder: Path, target: str, alertmanager: int) -> None:
    shutil.copytree(ROOT / "alerts" / "prometheus" / "rules", folder / "rules")
    recording = folder / "rules" / "recording.yml"
    recording.write_text(recording.read_text().replace("interval: 30s", "interval: 1s"))
    config = yaml.safe_load((ROOT / "alerts" / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{alertmanager}"]
    (job,) = config["scrape_configs"]
    del job["authorization"]
    job["static_configs"][0]["targets"] = [target]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))


def _train(running: Any, client: httpx.Client) -> None:
    """A run whose loss turns NaN, with an agent that says it dropped points; a few scrapes long."""
    run = running.new_run("sick", "smol", world_size=2)
    for seq in range(1, 60):
        loss = float("nan") if seq > 40 else 2.0
        running.send(frame(run, seq, ranks=(0, 1), metrics={"loss": loss}, dropped={"spool_full": seq}))
        time.sleep(0.1)
    running.until(lambda: running.get("incidents", run=run)["items"])
    until(lambda: result(client, "count_over_time(up[1m]) > 6"))


def result(client: httpx.Client, expr: str) -> list[Any]:
    answer = client.get("/api/v1/query", params={"query": expr})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"]["result"])


def promql() -> list[tuple[str, str]]:
    board = json.loads((ROOT / "dashboards" / "grafana" / "holter-itself.json").read_text())
    return [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel["targets"]]


@pytest.mark.parametrize(("title", "expr"), promql())
def test_query_finds_series(prometheus: httpx.Client, title: str, expr: str) -> None:
    found = result(prometheus, expr.replace("$__rate_interval", "30s"))
    assert found, f"{title}: {expr} finds nothing"


def test_all_rules_evaluate(prometheus: httpx.Client) -> None:
    def evaluated() -> list[dict[str, Any]] | None:
        groups = prometheus.get("/api/v1/rules").json()["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return rules if all(rule["health"] != "unknown" for rule in rules) else None

    rules = until(evaluated)
    written = [
        rule
        for file in (ROOT / "alerts" / "prometheus" / "rules").glob("*.yml")
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]
    assert len(rules) == len(written) > 20
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []


def test_a_critical_incident_and_the_watchdog_reach_alertmanager(prometheus: httpx.Client) -> None:
    url = prometheus.alertmanager  # type: ignore[attr-defined]

    def receivers() -> dict[str, list[str]]:
        alerts = httpx.get(f"{url}/api/v2/alerts").json()
        return {alert["labels"]["alertname"]: [one["name"] for one in alert["receivers"]] for alert in alerts}

    found = until(lambda: (seen := receivers()) and {"HolterWatchdog", "HolterIncidentCritical"} <= seen.keys() and seen)
    assert found["HolterWatchdog"] == ["watchdog"] and found["HolterIncidentCritical"] == ["pager"]
