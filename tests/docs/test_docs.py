"""The documentation builds without a warning, and the code that it shows runs as it stands."""

import argparse
import dataclasses
import importlib
import os
import re
import shlex
import subprocess
import sys
import time
import typing
from importlib.metadata import entry_points
from pathlib import Path

import holter
import httpx
import pytest
from collector import collector as running
from collector import frame
from holter.testing import CollectorStandIn
from holter_monitor import findings
from holter_monitor.alerting.policy_files import load
from holter_monitor.api.rates import BURST_SECONDS
from holter_monitor.engine import Engine
from holter_monitor.notify import webhook
from holter_monitor.notify.notice import example
from holter_monitor.notify.notifier import check
from holter_monitor.notify.receivers import notifier
from holter_monitor.notify.webhook import Webhook
from holter_monitor.settings import Limits
from holter_monitor.stream.steps import Point, RunFacts, Step
from holter_monitor.ui import POLICY
from pydantic import SecretStr
from sink import Sink

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "agent" / "README.md"]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=False)
    assert built.returncode == 0, built.stderr
    assert "loss_spike" in (tmp_path / "site" / "findings" / "index.html").read_text()
    assert "group_wait" in (tmp_path / "site" / "policies" / "index.html").read_text()
    api = (tmp_path / "site" / "api" / "index.html").read_text()
    assert re.search(r"<code>POST /api/v1/runs</code></td>\s*<td>write</td>", api), "routes with their scopes"
    assert "<code>find_run(word: str)</code>" in api, "the client's methods"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_that_is_shown_is_python(page):
    for block in blocks(page, "python"):
        compile(block, str(page), "exec")


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "first-hour.md"], ids=lambda page: page.name)
def test_the_loop_that_is_shown_records(page, tmp_path, monkeypatch):
    [loop] = [block for block in blocks(page, "python") if block.startswith("import holter")]
    with CollectorStandIn().serving() as collector:
        monkeypatch.setenv("HOLTER_URL", collector.url)
        monkeypatch.setenv("HOLTER_DIR", str(tmp_path))
        exec(loop, {"loader": range(5), "train_step": lambda batch: (2.0 + batch, 1.0), "n": 512})  # the reader's own script
        collector.wait_for_event("rank_finished")
        collector.wait_for(lambda seen: len(seen.points("loss")) == 5)
    assert collector.points("loss") == [(step, 2.0 + step) for step in range(5)]


def test_the_security_page_names_the_limits_and_the_policy_that_hold():
    page = (ROOT / "docs" / "security.md").read_text()
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \| [^|]+ \|$", page, re.MULTILINE))
    limits = Limits()
    assert rows["a request's body on the wire"] == f"{limits.body_bytes >> 20} MiB"
    assert (
        rows["the same, unpacked (zstd, gzip)"] == f"{limits.decompressed_bytes >> 20} MiB, and {limits.ratio} times its size on the wire"
    )
    assert rows["depth of JSON"] == str(limits.json_depth)
    assert rows["time for a request's head"] == f"{limits.header_seconds:.0f} s"
    assert rows["requests at once, beside frames"] == str(limits.in_flight)
    assert rows["frames that wait for their commit"] == f"{limits.waiting_bytes >> 20} MiB"
    assert rows["connections"] == str(limits.connections)
    rates = {
        "frames, points and new runs of one token": limits.writes_per_second,
        "other requests of one token": limits.requests_per_second,
    }
    for what, rate in rates.items():
        assert rows[what].startswith(f"{rate:.0f} a second, after a pause four seconds' worth") and BURST_SECONDS == 4
    assert rows["metrics of a run"] == str(limits.metrics_per_run)
    assert rows["free disk"] == f"{limits.free_disk_bytes >> 20} MiB (`--free-disk-mib`)"
    assert blocks(ROOT / "docs" / "security.md", "text") == [POLICY + "\n"]


def test_every_verb_that_is_shown_exists():
    known = subprocess.run([sys.executable, "-m", "holter.cli", "--help"], capture_output=True, text=True, check=True).stdout
    shown = {verb for page in PAGES for block in blocks(page, "console") for verb in re.findall(r"^holter (\w+)", block, re.MULTILINE)}
    assert shown
    assert {verb for verb in shown if not re.search(rf"^\s+{verb}\b", known, re.MULTILINE)} == set()


def test_the_policy_that_is_shown_is_one(tmp_path):
    [shown] = blocks(ROOT / "docs" / "alerting.md", "yaml")
    (tmp_path / "team.yml").write_text(shown)
    environ = dict.fromkeys(re.findall(r"\$\{(\w+)\}", shown), "x")
    policy = load(tmp_path, environ, check=notifier)
    assert [route.receivers for route in policy.routes] == [[], ["oncall", "chat"], ["chat"]] and policy.fallback == "mail"


def test_the_signature_check_that_is_shown_lets_only_holter_in():
    [shown] = blocks(ROOT / "docs" / "alerting.md", "python")
    got: dict = {}
    exec(shown, got)
    with Sink() as sink:
        Webhook(url=SecretStr(sink.url), secret=SecretStr("s3cret")).send(example(time.time()), httpx.Client())
        [call] = sink.wait(1)
    headers = httpx.Headers(call.headers)
    assert got["is_from_holter"](headers, call.body, "s3cret")
    assert not got["is_from_holter"](headers, call.body, "another")
    assert not got["is_from_holter"](headers, call.body + b" ", "s3cret")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "console")], ids=lambda page: page.name)
def test_every_command_that_is_shown_is_understood(page):
    verbs = {entry.name: entry for entry in entry_points(group="holter.commands")}
    lines = [line for block in blocks(page, "console") for line in block.splitlines() if line.startswith("holter ")]
    for line in lines:
        _, verb, *words = shlex.split(line, comments=True)
        parser = argparse.ArgumentParser(line, exit_on_error=False)
        verbs[verb].load().add_arguments(parser)
        parser.parse_args(words)


def test_the_detector_that_is_shown_detects():
    [shown] = blocks(ROOT / "docs" / "adding-a-detector.md", "python")
    names = {**vars(dataclasses), **vars(typing), **vars(findings), "Point": Point}
    exec(shown, names)
    engine = Engine(RunFacts(run="r"), [names["LossCeiling"]])
    said = [finding for step in range(9) for finding in engine.feed_step(Step.of(step, {"loss": 1.0 if step < 5 else 25.0}))]
    assert [(finding.kind, finding.onset_step) for finding in said] == [("loss_divergence", 5)]


def test_the_notifier_that_is_shown_sends():
    [shown] = blocks(ROOT / "docs" / "adding-a-notifier.md", "python")
    names = {**vars(dataclasses), **vars(typing), **vars(webhook), "check": check, "SecretStr": SecretStr}
    exec(f"from __future__ import annotations\n{shown}", names)
    with Sink() as sink:
        names["Pager"](url=SecretStr(sink.url)).send(example(time.time()), httpx.Client())
        [call] = sink.wait(1)
    assert call.json["transition"] == "test"


INTEGRATIONS = re.findall(r"from (holter\.integrations\.\w+) import (\w+)", (ROOT / "docs" / "integrations.md").read_text())


@pytest.mark.parametrize(("module", "name"), sorted(set(INTEGRATIONS)))
def test_every_integration_that_is_shown_is_there(module, name):
    try:
        assert callable(getattr(importlib.import_module(module), name))
    except ModuleNotFoundError as missing:
        if missing.name.startswith("holter"):
            raise
        pytest.skip(f"{missing.name} is not installed")


def test_the_agent_s_own_page_records(tmp_path, monkeypatch):
    loop, tested = blocks(ROOT / "agent" / "README.md", "python")
    facts = {"loader": range(5), "train": lambda batch: 2.0 + batch, "norm": 1.0, "lr": 1e-3, "n": 512}
    with CollectorStandIn().serving() as collector:
        monkeypatch.setenv("HOLTER_URL", collector.url)
        monkeypatch.setenv("HOLTER_DIR", str(tmp_path / "loop"))
        exec(loop, facts)
        collector.wait_for(lambda seen: len(seen.points("loss")) == 5)
    exec(tested, {"holter": holter, "tmp_path": tmp_path / "tested"})


def test_the_notebook_that_is_shown_gets_frames(tmp_path):
    pandas = pytest.importorskip("pandas")
    [shown] = blocks(ROOT / "docs" / "notebooks.md", "python")
    with running(tmp_path / "data") as served:
        run = served.new_run("3b", "smol", world_size=2)
        started = [{"event": "rank_started", "rank": rank, "step": None, "time_ns": 1, "attrs": {"world_size": 2}} for rank in (0, 1)]
        for step in range(3):
            metrics = {"loss": [2.0, float("nan") if step == 1 else 4.0], "step_time_seconds": [1.0, 1.5]}
            served.send(frame(run, step + 1, step=step, ranks=(0, 1), metrics=metrics, events=started if step == 0 else []))
        served.send(frame(run, 4, step=3, ranks=(0, 1), metrics={"loss": [1.0, 1.0]}))
        served.until(lambda: served.get(f"runs/{run}/curves", metrics="loss")["to_step"] == 3)
        served.until(lambda: len(served.get(f"runs/{run}/series", metric="loss")["step"]) == 4)
        got: dict = {}
        exec(shown.replace("http://127.0.0.1:8787", served.url), got)
    assert got["loss"]["value"].tolist() == [3.0, 2.0, 3.0, 1.0] and isinstance(got["loss"], pandas.DataFrame)
    assert got["worst"]["value"].tolist() == [1.5] * 3
    assert got["by_rank"].to_dict("list") == {"rank": [0, 1], "node": ["n1", "n1"], "loss": [1.0, 1.0]}
    assert got["by_node"] == {"n1": [3.0, 2.0, 3.0, 1.0]}
    assert got["heat"]["values"].shape == (2, 4) and got["heat"]["values"][0].tolist() == [2.0, 2.0, 2.0, 1.0]
    assert got["curves"]["max"].tolist()[0] == 4.0
