"""Alerting as `holter serve` runs it: the policy folder followed while it runs, the dead-man's switch, advice to a run."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collector import Collector
from holter.frame import Column, Frame
from sink import Answer, Call, Sink


def eventually(look: Callable[[], Any], seconds: float = 60.0) -> Any:
    ends, answer = time.monotonic() + seconds, None
    while time.monotonic() < ends:
        answer = look()
        if answer:
            return answer
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s; last answer {answer!r}")


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink(judge=lambda _: Answer(200, b"ok")) as sink:
        yield sink


@pytest.fixture
def served(tmp_path: Path, sink: Sink) -> Iterator[tuple[Collector, Path]]:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "team.yml").write_text(f"""
allow_private: true
receivers:
  chat: {{type: slack, webhook_url: "{sink.url}/first"}}
routes:
  - receivers: [chat]
    group_wait: 0
reactions:
  - {{match: {{project: p, kind: non_finite}}, advise: stop}}
heartbeat: {{url: "{sink.url}/alive", every: 1s}}
""")
    collector = Collector(tmp_path / "data", "--policies", str(policies)).start()
    yield collector, policies
    collector.close()


def ill(run: str, seq: int, first: int) -> Frame:
    """20 steps whose first is NaN."""
    losses = np.ones(20)
    losses[0] = np.nan
    step = np.arange(first, first + 20, dtype=np.int64)
    zeros = np.zeros(20, np.int32)
    return Frame(
        run=run,
        attempt="a",
        node="n",
        boot=run,
        seq=seq,
        sent_ns=1,
        rank=zeros,
        step=step,
        time_ns=step * 10**9,
        metrics={"loss": Column(losses)},
    )


def to(sink: Sink, path: str) -> list[Call]:
    return [call for call in sink.calls if call.path == path]


def test_a_policy_edit_takes_effect_and_a_mistake_leaves_the_old_one_in_force(served: tuple[Collector, Path], sink: Sink) -> None:
    collector, policies = served
    collector.send(ill(collector.new_run("a"), 1, 100))
    eventually(lambda: to(sink, "/first"))
    good = (policies / "team.yml").read_text()
    (policies / "team.yml").write_text(good.replace("receivers: [chat]", "receivers: [nobody]"))
    states = eventually(lambda: (found := collector.http.get("/readyz").json()["parts"])["alerting"] != "ok" and found)
    assert "team.yml:" in states["alerting"] and "no receiver is called 'nobody'" in states["alerting"]
    collector.send(ill(collector.new_run("b"), 1, 100))
    eventually(lambda: len(to(sink, "/first")) >= 2)
    (policies / "team.yml").write_text(good.replace("/first", "/second"))
    eventually(lambda: "team.yml" not in collector.http.get("/readyz").json()["parts"]["alerting"])
    collector.send(ill(collector.new_run("c"), 1, 100))
    assert "p/c" in eventually(lambda: to(sink, "/second"))[0].json["text"]


def test_the_heartbeat_beats_while_all_is_well_and_stops_with_the_collector(served: tuple[Collector, Path], sink: Sink) -> None:
    """kill -STOP: the process is there, its port is open, nothing works. The outside watch hears no more."""
    collector, _ = served
    eventually(lambda: len(to(sink, "/alive")) >= 2)
    os.kill(collector.process.pid, signal.SIGSTOP)
    try:
        time.sleep(0.5)
        beats = len(to(sink, "/alive"))
        time.sleep(4)
        assert len(to(sink, "/alive")) == beats
    finally:
        os.kill(collector.process.pid, signal.SIGCONT)
    eventually(lambda: len(to(sink, "/alive")) > beats)
    assert collector.http.get("/readyz").json()["parts"]["alerting"] == "ok"
    assert not to(sink, "/first")  # nobody but the canary's own receiver hears of it


def test_the_heartbeat_follows_the_policy(served: tuple[Collector, Path], sink: Sink) -> None:
    """It is moved, taken away and brought back while the collector runs."""
    collector, policies = served
    path, good = policies / "team.yml", (policies / "team.yml").read_text()
    eventually(lambda: to(sink, "/alive"))
    path.write_text(good.replace("/alive", "/elsewhere"))
    eventually(lambda: to(sink, "/elsewhere"))
    path.write_text("\n".join(line for line in good.splitlines() if "heartbeat" not in line))
    eventually(lambda: beats_end(sink))
    assert collector.http.get("/readyz").json()["parts"]["alerting"] == "ok"
    path.write_text(good.replace("/alive", "/again"))
    eventually(lambda: to(sink, "/again"))
    collector.kill()
    beats = len(to(sink, "/again"))
    collector.start()  # a new life's canaries are no repetition of those that an earlier life had sent
    eventually(lambda: len(to(sink, "/again")) > beats + 2)


def beats_end(sink: Sink) -> bool:
    heard = len(sink.calls)
    time.sleep(2.5)
    return len(sink.calls) == heard


def test_a_restart_while_an_alert_waits_fires_it_at_its_own_time_and_repeats_none(served: tuple[Collector, Path], sink: Sink) -> None:
    """kill -9 in the hold of a finding that has not been told, and after it has been."""
    collector, policies = served
    path, good = policies / "team.yml", (policies / "team.yml").read_text()
    path.write_text(good + "hold: 8s\n")
    collector.stop()
    collector.start()
    collector.send(ill(collector.new_run("held"), 1, 100))
    (held,) = eventually(lambda: collector.get("incidents", project="p")["items"])
    assert held["state"] == "pending" and not to(sink, "/first")
    collector.kill()
    time.sleep(1.0)
    collector.start()
    due = datetime.fromisoformat(held["created"]).timestamp() + 8.0
    eventually(lambda: to(sink, "/first"))
    assert abs(time.time() - due) < 2.0
    collector.kill()
    collector.start()
    eventually(lambda: collector.http.get("/readyz").is_success)
    time.sleep(2.0)
    assert len(to(sink, "/first")) == 1


def test_a_silence_that_ends_while_the_collector_is_down_is_told_at_its_start(served: tuple[Collector, Path], sink: Sink) -> None:
    collector, _ = served
    run, now = collector.new_run("muted"), datetime.now(timezone.utc)
    silence = {"matchers": {"run": "muted"}, "author": "ada", "reason": "we know", "ends": (now + timedelta(seconds=4)).isoformat()}
    answer = collector.http.post("/api/v1/silences", json=silence)
    assert answer.status_code == 201, answer.text
    collector.send(ill(run, 1, 100))
    (hidden,) = eventually(lambda: collector.get("incidents", run=run)["items"])
    assert hidden["silence"] and not to(sink, "/first")
    collector.kill()
    time.sleep(5.0)
    assert not to(sink, "/first")
    collector.start()
    assert "muted" in eventually(lambda: to(sink, "/first"), 5.0)[0].json["text"]


def test_advice_rides_in_the_acknowledgement_and_is_audited(served: tuple[Collector, Path]) -> None:
    collector, _ = served
    run = collector.new_run("advised")
    collector.send(ill(run, 1, 100))

    def advised(seq: list[int] = [1]) -> Any:  # noqa: B006
        seq[0] += 1
        return collector.send(ill(run, seq[0], 100 * seq[0])).json().get("advice")

    advice = eventually(advised)
    assert advice["stop"] is True and "non finite" in advice["reason"]
    other = collector.new_run("other", project="q")
    collector.send(ill(other, 1, 100))
    assert "advice" not in collector.send(ill(other, 2, 200)).json()
