"""Alerting as `holter serve` runs it: the policy folder followed while it runs, the dead-man's switch, advice to a run."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collector import Collector
from holter.frame import Column, Frame
from sink import Answer, Call, Sink


def eventually(look: Callable[[], Any], seconds: float = 30.0) -> Any:
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
