"""A run's steps and events through engine, alerting and rendering, to the messages that people get; with a clock of the test's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from holter.frame import Event, Frame
from holter_monitor.alerting.alerting import Alerting
from holter_monitor.alerting.policies import Policy
from holter_monitor.engine import Engine
from holter_monitor.notify.notice import Notice
from holter_monitor.notify.render import text
from holter_monitor.store.tables import metadata, outbox, runs
from holter_monitor.stream.steps import RunFacts, Step


class Messages:
    """`step(...)` a record, `hear(...)` an event, `notices` all that was sent."""

    def __init__(self, folder: Any, **facts: Any) -> None:
        self.engine = sa.create_engine(f"sqlite:///{folder}/messages.db")
        metadata.create_all(self.engine)
        self.now, self.number, self.attempt = 1_000_000.0, 0, "1"
        world = facts.setdefault("world_size", 1)
        self._run = SimpleNamespace(id="r", project="smol", name="3b", world_size=world)
        self._watched, self._alerting = Engine(RunFacts(run="r", project="smol", name="3b", **facts)), Alerting(Policy())
        with self.engine.begin() as connection:
            connection.execute(runs.insert().values(id="r", project="smol", name="3b", created_at=0.0, updated_at=0.0, advice={}))

    def step(self, seconds: float = 1.0, events: tuple[Event, ...] = (), **values: float) -> None:
        self.now += seconds
        self.number += 1
        step = Step.of(self.number, values, time=self.now, attempt=self.attempt)
        step.say(list(events))
        self._tell(self._watched.feed_step(step))
        for event in events:
            self._tell(self._watched.hear(event))

    def hear(self, word: str, rank: int | None = None, step: int | None = None, **attrs: Any) -> None:
        event = {"event": word, "rank": rank, "step": step, "time_ns": int(self.now * 1e9), "attrs": attrs}
        self._tell(self._watched.hear(event))

    def take(self, step: Step) -> None:
        """A step of many ranks, at its own time."""
        self.now, self.number, self._watched.topology = step.time, step.number, step.topology
        self._tell(self._watched.feed_step(step))

    def feed(self, frame: Frame) -> None:
        self._tell(self._watched.feed(frame, self.now))

    def wait(self, seconds: float) -> None:
        """Time goes by in silence."""
        ends = self.now + seconds
        while self.now < ends:
            self.now = min(ends, self.now + 5.0)
            self._tell(self._watched.tick(self.now))

    def _tell(self, findings: Any) -> None:
        with self.engine.begin() as connection:
            self._alerting.apply(connection, self._run, findings, self.now)
            self._alerting.tick(connection, self.now)
            connection.execute(outbox.update().where(outbox.c.status == "ready", outbox.c.next_at <= self.now).values(status="sent"))

    @property
    def notices(self) -> list[Notice]:
        with self.engine.begin() as connection:
            query = sa.select(outbox.c.notice).where(outbox.c.status != "superseded").order_by(outbox.c.id)
            return [Notice.from_json(notice) for notice in connection.scalars(query)]

    @property
    def shown(self) -> list[str]:
        """Transition, severity, kind and the whole text of each."""
        return [f"[{notice.transition} {notice.severity} {notice.kind}]\n{text(notice)}" for notice in self.notices]
