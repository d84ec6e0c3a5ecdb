"""A real Alertmanager receives our alerts, groups them, and a silence there hides them."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from holter_monitor.notify import Notice
from holter_monitor.notify.alertmanager import Alertmanager
from holter_monitor.notify.http import client
from sink import Sink

BINARY = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
pytestmark = pytest.mark.skipif(BINARY is None, reason="needs Alertmanager: apt-get install prometheus-alertmanager")
CONFIG = """
route: {{receiver: sink, group_by: [project], group_wait: 1s, group_interval: 1s, repeat_interval: 1h}}
receivers: [{{name: sink, webhook_configs: [{{url: "{url}/am", send_resolved: true}}]}}]
"""


def free_port() -> int:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return int(it.getsockname()[1])


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[tuple[str, Sink]]:
    port = free_port()
    with Sink() as sink:
        (tmp_path / "am.yml").write_text(CONFIG.format(url=sink.url))
        words = [f"--config.file={tmp_path}/am.yml", f"--storage.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{port}"]
        process = subprocess.Popen([str(BINARY), *words, "--cluster.listen-address="], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(200):
                try:
                    if httpx.get(f"http://127.0.0.1:{port}/-/ready", trust_env=False).is_success:
                        break
                except httpx.TransportError:
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}", sink
        finally:
            process.terminate()
            process.wait(10)


def notice(run: str, **words: Any) -> Notice:
    now = time.time()
    facts: dict[str, Any] = {
        "key": "k",
        "transition": "trigger",
        "incident": f"id-{run}",
        "kind": "hang",
        "severity": "warning",
        "state": "open",
    }
    facts |= {"project": "smol", "run": run, "run_name": run, "summary": f"no step for 60 s in {run}", "onset_step": 1, "detected_step": 1}
    return Notice(**facts | {"created": now - 5, "updated": now, "link": "http://holter/incidents/1"} | words)


def until(sink: Sink, wanted: Callable[[Any], Any]) -> Any:
    """The first message to the sink that is as wanted."""
    for _ in range(200):
        for call in sink.calls:
            if wanted(call.json):
                return call.json
        time.sleep(0.1)
    raise AssertionError([call.json for call in sink.calls])


def states(got: Any) -> dict[tuple[str, str], str]:
    return {(alert["labels"]["run"], alert["labels"]["severity"]): alert["status"] for alert in got["alerts"]}


def test_it_receives_groups_and_resolves(alertmanager: tuple[str, Sink]) -> None:
    url, sink = alertmanager
    it = Alertmanager(url=url)
    with client(allow_private=True) as http:
        for run in ("a", "b", "c"):
            it.send(notice(run), http)
        first = until(sink, lambda got: len(got["alerts"]) == 3)
        assert {alert["labels"]["run"] for alert in first["alerts"]} == {"a", "b", "c"} and first["status"] == "firing"
        assert first["alerts"][0]["generatorURL"] == "http://holter/incidents/1"
        it.send(replace(notice("a"), transition="update", severity="critical"), http)
        until(sink, lambda got: states(got).get(("a", "critical")) == "firing")
        until(sink, lambda got: states(got).get(("a", "warning")) == "resolved")
        for run, severity in (("a", "critical"), ("b", "warning"), ("c", "warning")):
            it.send(replace(notice(run), transition="resolve", severity=severity), http)
        until(sink, lambda got: got["status"] == "resolved")


def test_a_silence_there_hides_an_alert(alertmanager: tuple[str, Sink]) -> None:
    url, sink = alertmanager
    silence = {"matchers": [{"name": "kind", "value": "hang", "isRegex": False}], "createdBy": "ada", "comment": "x"}
    silence |= {"startsAt": "2020-01-01T00:00:00Z", "endsAt": "2099-01-01T00:00:00Z"}
    with client(allow_private=True) as http:
        httpx.post(f"{url}/api/v2/silences", json=silence, trust_env=False).raise_for_status()
        Alertmanager(url=url).send(notice("a"), http)
        Alertmanager(url=url).send(notice("b", kind="straggler"), http)
        got = until(sink, lambda got: got["alerts"])
        assert [alert["labels"]["run"] for alert in got["alerts"]] == ["b"]
        held = httpx.get(f"{url}/api/v2/alerts?filter={quote('kind=hang')}", trust_env=False).json()
    assert [alert["status"]["state"] for alert in held] == ["suppressed"], json.dumps(held)
