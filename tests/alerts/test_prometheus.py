"""Rules, scrape configuration and routes, judged by the tools that will run them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "alerts" / "prometheus"
ALERTMANAGER = ROOT / "alerts" / "alertmanager.yml"
KNOWN = set(re.findall(r"^\| `(holter_\w+)`", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE))
"""The metrics that docs/architecture.md promises."""


def tool(name: str, *words: str | Path) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed: the configuration was not checked with it")
    answer = subprocess.run([path, *words], capture_output=True, text=True, timeout=60, cwd=PROMETHEUS, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def test_promtool_accepts_the_rules() -> None:
    tool("promtool", "check", "rules", *sorted(PROMETHEUS.glob("rules/*.yml")))


def test_promtool_accepts_the_scrape_configuration() -> None:
    tool("promtool", "check", "config", "--syntax-only", "prometheus.yml")


def test_rules_fire_and_stay_silent_as_their_tests_say() -> None:
    tool("promtool", "test", "rules", *sorted(PROMETHEUS.glob("tests/*.yml")))


def test_a_weakened_rule_fails_its_test(tmp_path: Path) -> None:
    """The unit tests would notice."""
    shutil.copytree(PROMETHEUS, tmp_path / "prometheus")
    rules = tmp_path / "prometheus" / "rules" / "collector.yml"
    rules.write_text(rules.read_text().replace("holter_consumer_lag_seconds > 120", "holter_consumer_lag_seconds > 1200"))
    with pytest.raises(AssertionError, match="HolterBehind"):
        tool("promtool", "test", "rules", tmp_path / "prometheus" / "tests" / "collector.yml")


def test_amtool_accepts_the_alertmanager_configuration() -> None:
    tool("amtool", "check-config", ALERTMANAGER)


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["alertname=HolterDown", "severity=critical"], "pager"),
        (["alertname=HolterBehind", "severity=warning"], "chat"),
        (["alertname=HolterPointsDropped", "severity=info"], "nobody"),
        (["alertname=HolterWatchdog", "severity=none"], "watchdog"),
    ],
)
def test_each_alert_reaches_its_receiver(labels: list[str], receiver: str) -> None:
    assert tool("amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", *labels).strip() == receiver


def test_rules_and_dashboards_use_only_metrics_that_the_collector_promises() -> None:
    files = [*PROMETHEUS.glob("rules/*.yml"), ROOT / "dashboards" / "itself.py"]
    used = {name for file in files for name in re.findall(r"\b(holter_(?!read)\w+)", file.read_text())}
    stripped = {re.sub(r"_(bucket|count|sum)$", "", name) for name in used}
    assert stripped <= KNOWN
    assert len(stripped) > 10
