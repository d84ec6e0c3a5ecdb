"""The outbox's worker against the real control store: order, leases, back-off, digest, fallback. The clock is an argument."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

import httpx
import pytest
import sqlalchemy as sa
from holter_monitor.alerting.alerting import Alerting
from holter_monitor.alerting.policies import Policy
from holter_monitor.findings import Finding, Severity
from holter_monitor.notify import DeliveryFailed, DeliveryRefused, Limits, Notice
from holter_monitor.notify.http import client
from holter_monitor.notify.outbox import LEASE_SECONDS, Worker
from holter_monitor.notify.receivers import notifier
from holter_monitor.store.outbox import SqlOutbox
from holter_monitor.store.tables import metadata, outbox, runs
from sink import Answer, Call, Sink


@dataclass(frozen=True, kw_only=True)
class Scripted:
    """A notifier that does what its script says and remembers what it delivered."""

    kind: ClassVar[str] = "scripted"
    limits: ClassVar[Limits] = Limits(per_second=1000, burst=1000)
    script: list[Exception | str | None] = field(default_factory=list)
    got: list[Notice] = field(default_factory=list)

    def send(self, notice: Notice, http: httpx.Client) -> str | None:
        word = self.script.pop(0) if self.script else None
        if isinstance(word, Exception):
            raise word
        self.got.append(notice)
        return word


@dataclass(frozen=True, kw_only=True)
class Chat(Scripted):
    limits: ClassVar[Limits] = Limits(per_second=1.0, burst=3, digest_from=5)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def engine(tmp_path: Any) -> Iterator[sa.Engine]:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/control.db")
    sa.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))  # power loss is tested elsewhere
    metadata.create_all(engine)
    yield engine
    engine.dispose()


def fail(engine: sa.Engine, number: int, now: float, severity: Severity = Severity.CRITICAL, **words: Any) -> None:
    """Run number `number` has an incident."""
    run = SimpleNamespace(id=f"run{number}", project="smol", name=f"ablation-{number:04d}", world_size=1)
    policy = Policy.model_validate({"receivers": {"chat": {"type": "log"}}, "keep_open": 0})
    with engine.begin() as connection:
        if not connection.scalar(sa.select(runs.c.id).where(runs.c.id == run.id)):
            connection.execute(runs.insert().values(id=run.id, project="smol", name=run.name, created_at=0.0, updated_at=0.0))
        finding = Finding(kind="hang", severity=severity, onset_step=1, detected_step=1, summary="no step for 60 s", **words)
        Alerting(policy, link="http://holter").apply(connection, run, [finding], now)  # type: ignore[arg-type]


def worker(engine: sa.Engine, notifier: Scripted, clock: Clock, **more: Any) -> Worker:
    return Worker(receiver="chat", notifier=notifier, outbox=SqlOutbox(engine, **more), http=httpx.Client(), clock=clock, link="http://h")


def run_for(it: Worker, clock: Clock, seconds: float) -> None:
    ends = clock.now + seconds
    while clock.now < ends:
        clock.now += max(0.05, min(it.step(), ends - clock.now))


def test_a_notice_is_delivered_once_and_marked(engine: sa.Engine) -> None:
    clock, chat = Clock(), Scripted()
    fail(engine, 1, clock.now)
    run_for(worker(engine, chat, clock), clock, 10)
    assert len(chat.got) == 1
    with engine.connect() as connection:
        assert connection.execute(sa.select(outbox.c.status, outbox.c.attempts)).all() == [("sent", 1)]


def test_failures_back_off_by_schedule_and_the_notice_arrives(engine: sa.Engine) -> None:
    """20 × 500, then 200: spacing 5, 15, 30, 60, 120, then 300 s, each within 10 %."""
    clock, tries = Clock(), []
    chat = Scripted(script=[DeliveryFailed("HTTP 500") for _ in range(20)])
    fail(engine, 1, clock.now)
    it = worker(engine, chat, clock)
    while not chat.got:
        before = len(chat.script)
        wait = it.step()
        if len(chat.script) < before or chat.got:
            tries.append(clock.now)
        clock.now += max(0.01, wait)
    gaps = [later - sooner for sooner, later in itertools.pairwise(tries)]
    assert gaps == pytest.approx([5, 15, 30, 60, 120] + [300] * 15, rel=0.1)


def test_retry_after_wins_over_the_schedule(engine: sa.Engine) -> None:
    clock, chat = Clock(), Scripted(script=[DeliveryFailed("429", retry_after=77.0)])
    fail(engine, 1, clock.now)
    it = worker(engine, chat, clock)
    run_for(it, clock, 76)
    assert not chat.got
    run_for(it, clock, 2)
    assert len(chat.got) == 1


def test_it_gives_up_after_a_day_and_not_before(engine: sa.Engine) -> None:
    clock, chat = Clock(), Scripted(script=[DeliveryFailed("down") for _ in range(1000)])
    fail(engine, 1, clock.now)
    it = worker(engine, chat, clock)
    run_for(it, clock, 24 * 3600 - 400)
    with engine.connect() as connection:
        assert connection.scalar(sa.select(outbox.c.status)) == "ready"
    run_for(it, clock, 1000)
    with engine.connect() as connection:
        assert connection.scalar(sa.select(outbox.c.status)) == "dead"


def test_a_refusal_is_dead_at_once_visible_and_goes_to_the_fallback(engine: sa.Engine) -> None:
    clock, chat = Clock(), Scripted(script=[DeliveryRefused("HTTP 404 'no_service'")])
    fail(engine, 1, clock.now)
    run_for(worker(engine, chat, clock, fallback="mail"), clock, 60)
    with engine.connect() as connection:
        rows = connection.execute(sa.select(outbox.c.receiver, outbox.c.status, outbox.c.last_error, outbox.c.notice)).all()
    assert [(row.receiver, row.status) for row in rows] == [("chat", "dead"), ("mail", "ready")]
    assert "no_service" in rows[0].last_error and "receiver chat cannot be reached" in rows[1].notice["note"]


def test_a_receiver_that_is_taken_away_leaves_nothing_waiting(engine: sa.Engine) -> None:
    """Its notices are dead with the reason, the fallback receiver has them, and nobody tries them again."""
    clock, chat = Clock(), Chat(script=[DeliveryFailed("down")] * 9)
    for number in range(3):
        fail(engine, number, clock.now)
    run_for(worker(engine, chat, clock), clock, 2)
    outbox_of_all = SqlOutbox(engine, fallback="other")
    assert outbox_of_all.retire(["other"], clock.now) == 3
    with engine.connect() as connection:
        dead = connection.execute(sa.select(outbox.c.status, outbox.c.last_error).where(outbox.c.receiver == "chat")).all()
    assert dead == [("dead", "the policy has no receiver of this name any more")] * 3
    assert len(outbox_of_all.claim("other", 10, clock.now)) == 3
    assert outbox_of_all.next_at("chat") is None and outbox_of_all.retire(["other"], clock.now) == 0


def test_five_minutes_of_failure_also_go_to_the_fallback_once(engine: sa.Engine) -> None:
    clock, chat = Clock(), Scripted(script=[DeliveryFailed("down") for _ in range(1000)])
    fail(engine, 1, clock.now)
    run_for(worker(engine, chat, clock, fallback="mail"), clock, 3600)
    with engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).where(outbox.c.receiver == "mail")) == 1


def test_a_resolve_never_overtakes_its_trigger(engine: sa.Engine) -> None:
    clock, chat = Clock(), Scripted(script=[DeliveryFailed("down"), DeliveryFailed("down")])
    fail(engine, 1, clock.now)
    it = worker(engine, chat, clock)
    it.step()
    fail(engine, 1, clock.now, end_step=5)
    with engine.begin() as connection:
        Alerting(Policy.model_validate({"receivers": {"chat": {"type": "log"}}, "keep_open": 0})).tick(connection, clock.now + 1)
    run_for(it, clock, 300)
    assert [notice.transition for notice in chat.got] == ["trigger", "resolve"]


def test_a_lease_keeps_others_away_until_it_ends(engine: sa.Engine) -> None:
    fail(engine, 1, 1000.0)
    first, second = SqlOutbox(engine), SqlOutbox(engine)
    taken = first.claim("chat", 1, 1000.0)
    assert len(taken) == 1 and second.claim("chat", 1, 1000.0 + LEASE_SECONDS - 1) == []
    again = second.claim("chat", 1, 1000.0 + LEASE_SECONDS + 1)
    assert [delivery.notice.key for delivery in again] == [delivery.notice.key for delivery in taken]
    first.sent(taken, None, 1040.0)  # woke up too late: the mark must not touch what the second one holds
    with engine.connect() as connection:
        assert connection.scalar(sa.select(outbox.c.status)) == "leased"


def test_a_thousand_runs_at_once_are_few_messages_that_name_every_run(engine: sa.Engine) -> None:
    """The cluster's network fails: at most 20 messages, and no more than one a second."""
    clock, chat = Clock(), Chat()
    it, sent_at, heard = worker(engine, chat, clock), [], 0
    for number in range(1000):
        fail(engine, number, clock.now)
        if number % 100 == 99:
            ends = clock.now + 1.0
            while clock.now < ends:
                wait = it.step()
                if len(chat.got) > heard:
                    heard, _ = len(chat.got), sent_at.append(clock.now)
                clock.now += max(0.01, min(wait, ends - clock.now))
    run_for(it, clock, 120)
    named = {member.run_name for notice in chat.got for member in (notice.members or (notice,))}
    assert len(chat.got) <= 20 and len(named) == 1000
    assert sent_at[0] - 1000.0 <= 30


def test_a_thousand_pages_go_at_pagerdutys_pace_and_the_most_urgent_first(engine: sa.Engine) -> None:
    """A key takes 120 events in any minute and says 429 to more; we stay below 100, and it never has to."""
    clock, at = Clock(), []

    def strict(_: Call) -> Answer:
        at.append(clock.now)
        return Answer(202) if sum(clock.now - 60 < earlier for earlier in at) <= 120 else Answer(429, headers={"Retry-After": "30"})

    for number in range(1000):
        fail(engine, number, clock.now, Severity.WARNING if number < 500 else Severity.CRITICAL)
    clock.now += 1.0  # the warnings' group wait
    with Sink(judge=strict) as sink, client(allow_private=True) as http:
        pager = notifier("pager", {"type": "pagerduty", "routing_key": "k", "url": sink.url})
        it = Worker(receiver="chat", notifier=pager, outbox=SqlOutbox(engine), http=http, clock=clock)
        run_for(it, clock, 660)
    events = [call.json for call in sink.calls]
    assert [event["payload"]["severity"] for event in events] == ["critical"] * 500 + ["warning"] * 500
    assert len({event["dedup_key"] for event in events}) == 1000
    assert max(sum(start <= moment < start + 60 for moment in at) for start in at) <= 105  # the rate, and the burst it may begin with


def test_an_unexpected_error_of_a_notifier_loses_nothing(engine: sa.Engine) -> None:
    clock, chat = Clock(), Scripted(script=[KeyError("bug")])
    fail(engine, 1, clock.now)
    run_for(worker(engine, chat, clock), clock, 20)
    assert len(chat.got) == 1


def test_the_second_message_knows_the_first_ones_name(engine: sa.Engine) -> None:
    """Slack's thread: the receiver's own name for the first message comes with every later one."""
    clock, chat = Clock(), Scripted(script=["1700.42"])
    fail(engine, 1, clock.now, Severity.WARNING)
    it = worker(engine, chat, clock)
    run_for(it, clock, 5)
    fail(engine, 1, clock.now, Severity.CRITICAL)
    run_for(it, clock, 5)
    assert [notice.thread for notice in chat.got] == [None, "1700.42"]
