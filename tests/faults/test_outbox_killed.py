"""kill -9 around claim, send and mark: nothing is missed, and a kill costs at most one repeat, under the same key."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa
import victim
from holter_monitor.store.tables import incident_findings, incidents, outbox
from sink import Sink

PLACES = ["before claim", "after claim", "after send", "after mark", "in transaction", "any time"]


@pytest.mark.parametrize(
    "num_kills",
    [pytest.param(150, marks=pytest.mark.timeout(300)), pytest.param(2000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])],
)
def test_nothing_is_missed_and_a_kill_costs_at_most_one_repeat(tmp_path: Path, num_kills: int) -> None:
    num_findings, dice = num_kills * 4, random.Random(7)
    path = str(tmp_path / "control.db")
    victim.prepare(path)
    kills, status = 0, 1
    with Sink() as sink, Victims(f"{sink.url}/warm") as victims:
        while status != 0 and kills < num_kills * 3:
            place = dice.choice(PLACES) if kills < num_kills else ""
            seconds = dice.uniform(0.0, 0.03) if place == "any time" else None
            status = victims.one(path, sink.url, num_findings, place, dice.randrange(3), seconds)
            kills += status != 0
        calls = [
            (call.headers["idempotency-key"], call.json["incident"], call.json["transition"]) for call in sink.calls if call.path != "/warm"
        ]
    with victim.connect(path).connect() as connection:
        wanted = set(connection.scalars(sa.select(outbox.c.idempotency_key).where(outbox.c.status != "superseded")))
        states = set(connection.scalars(sa.select(outbox.c.status)))
        heard = connection.scalar(sa.select(sa.func.count()).select_from(incident_findings))
        opened = set(connection.scalars(sa.select(incidents.c.id)))
    got = Counter(key for key, _, _ in calls)
    assert kills >= num_kills and states <= {"sent", "superseded"}
    assert heard == num_findings // 2 and {incident for _, incident, _ in calls} == opened
    assert set(got) == wanted  # missed: 0, invented: 0
    assert sum(got.values()) - len(got) <= kills
    assert_in_order(calls)


class Victims:
    """The process whose forks are killed."""

    def __init__(self, url: str) -> None:
        self.process = subprocess.Popen([sys.executable, victim.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.say(url)

    def __enter__(self) -> Victims:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=30)

    def say(self, words: object) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()

    def one(self, *arguments: object) -> int:
        assert self.process.stdout
        self.say(arguments)
        return int(self.process.stdout.readline())


def assert_in_order(calls: list[tuple[str, str, str]]) -> None:
    """No resolve before its trigger was accepted, and no trigger after its resolve."""
    seen: dict[str, set[str]] = {}
    for _, incident, transition in calls:
        before = seen.setdefault(incident, set())
        assert transition != "trigger" or "resolve" not in before
        before.add(transition)
