"""Several workers on one outbox, SQLite and PostgreSQL: nothing twice while all live, and a worker that wakes after its lease undoes nothing."""

from __future__ import annotations

import threading
import time
from collections import Counter
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
from holter_monitor.notify.limits import FALLBACK_AFTER
from holter_monitor.notify.outbox import LEASE_SECONDS, Worker
from holter_monitor.store.outbox import SqlOutbox
from holter_monitor.store.tables import metadata, outbox, runs
from postgres import running

RUNS = 40


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """Remembers what it got; `gate`, where there is one, holds every message up until it opens, then `end` happens."""

    kind: ClassVar[str] = "receiver"
    limits: ClassVar[Limits] = Limits(per_second=1e6, burst=1_000_000)
    name: str
    got: list[str] = field(default_factory=list)
    gate: threading.Event | None = None
    reached: threading.Event = field(default_factory=threading.Event)
    end: Exception | None = None

    def send(self, notice: Notice, http: httpx.Client) -> str | None:
        self.got.append(notice.key)
        self.reached.set()
        if self.gate is not None:
            assert self.gate.wait(30)
        if self.end is not None:
            raise self.end
        return self.name


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running() as it:
        yield it.url.replace("postgresql:", "postgresql+psycopg:")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def engine(request: Any, tmp_path: Any) -> Iterator[sa.Engine]:
    is_file = request.param == "sqlite"
    engine = sa.create_engine(f"sqlite:///{tmp_path}/control.db" if is_file else request.getfixturevalue("server"))
    metadata.create_all(engine)
    yield engine
    metadata.drop_all(engine)
    engine.dispose()


def fail(engine: sa.Engine, number: int, now: float) -> None:
    run = SimpleNamespace(id=f"run{number}", project="smol", name=f"ablation-{number}", world_size=1)
    finding = Finding(kind="hang", severity=Severity.CRITICAL, onset_step=1, detected_step=1, summary="no step for 60 s")
    with engine.begin() as connection:
        connection.execute(runs.insert().values(id=run.id, project="smol", name=run.name, created_at=0.0, updated_at=0.0))
        Alerting(Policy.model_validate({"receivers": {"chat": {"type": "log"}}})).apply(connection, run, [finding], now)  # type: ignore[arg-type]


def worker(store: SqlOutbox, receiver: Receiver, clock: Any) -> Worker:
    return Worker(receiver="chat", notifier=receiver, outbox=store, http=httpx.Client(), clock=clock)


def rows(engine: sa.Engine) -> list[Any]:
    columns = (outbox.c.receiver, outbox.c.status, outbox.c.provider_id, outbox.c.attempts)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.select(*columns).order_by(outbox.c.id))]


def test_two_workers_at_once_send_everything_once(engine: sa.Engine) -> None:
    for number in range(RUNS):
        fail(engine, number, time.time())
    start, ends = threading.Barrier(2), time.monotonic() + 60
    receivers = [Receiver(name="first"), Receiver(name="second")]

    def drain(receiver: Receiver) -> None:
        it = worker(SqlOutbox(engine), receiver, time.time)
        start.wait(30)
        while time.monotonic() < ends and any(status != "sent" for _, status, *_ in rows(engine)):
            it.step()

    threads = [threading.Thread(target=drain, args=(receiver,)) for receiver in receivers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(70)
    sent = Counter(key for receiver in receivers for key in receiver.got)
    assert len(sent) == RUNS and set(sent.values()) == {1}
    marks = Counter((status, provider, attempts) for _, status, provider, attempts in rows(engine))
    assert marks == Counter({("sent", receiver.name, 1): len(receiver.got) for receiver in receivers if receiver.got})


@pytest.mark.parametrize("end", [None, DeliveryFailed("timed out"), DeliveryRefused("HTTP 404")], ids=["sent", "failed", "refused"])
@pytest.mark.parametrize("is_same_process", [False, True], ids=["another process", "same process"])
@pytest.mark.parametrize("is_marked", [True, False], ids=["after the mark", "during the send"])
def test_a_worker_that_wakes_after_its_lease_undoes_nothing(
    engine: sa.Engine, end: Exception | None, *, is_same_process: bool, is_marked: bool
) -> None:
    """It hangs in its request past its lease; another takes the notice over. Whatever the first then hears is no longer its to mark,
    and the fallback is not told that the receiver cannot be reached."""
    fail(engine, 1, 1000.0)
    store, gate = SqlOutbox(engine, fallback="mail"), threading.Event()
    zombie = Receiver(name="zombie", gate=gate, end=end)
    times = iter([1000.0, 1000.0])  # made, and claimed; then it wakes
    hung = worker(store, zombie, lambda: next(times, 1000.0 + FALLBACK_AFTER + 1))
    thread = threading.Thread(target=hung.step)
    thread.start()
    assert zombie.reached.wait(30)

    def wake() -> None:
        gate.set()
        thread.join(30)
        assert not thread.is_alive()

    second = store if is_same_process else SqlOutbox(engine, fallback="mail")
    taken = second.claim("chat", 1, 1000.0 + LEASE_SECONDS + 1)
    assert [delivery.notice.key for delivery in taken] == zombie.got, "at least once, under the same key"
    if not is_marked:
        wake()
        assert rows(engine) == [("chat", "leased", None, 2)]
    second.sent(taken, "living", 1000.0 + LEASE_SECONDS + 2)
    wake()
    assert rows(engine) == [("chat", "sent", "living", 2)]
