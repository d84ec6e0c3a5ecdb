"""A collector's alerting in miniature, in a process that may be killed anywhere: findings from a log by offset, the outbox, one receiver."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from holter_monitor.alerting.alerting import Alerting
from holter_monitor.alerting.policies import Policy
from holter_monitor.findings import Finding, Severity
from holter_monitor.notify.http import client
from holter_monitor.notify.outbox import Worker
from holter_monitor.notify.webhook import Webhook
from holter_monitor.store.outbox import SqlOutbox
from holter_monitor.store.tables import consumers, metadata, runs
from pydantic import SecretStr

COMPILED: dict[Any, Any] = {}
"""Compiled statements, shared by all engines of this process and handed down to its forks."""
POLICY = Policy.model_validate({"receivers": {"hook": {"type": "log"}}, "keep_open": 0})
HTTP = client(allow_private=True)
RUN = SimpleNamespace(id="run1", project="smol", name="3b", world_size=1)


def finding(number: int) -> Finding:
    """The log: entry 2k opens the k-th incident, entry 2k + 1 ends it."""
    onset = 1000 * (number // 2 + 1)
    return Finding(
        kind="loss_spike",
        scope=f"tensor {number // 2}",
        severity=Severity.CRITICAL,
        onset_step=onset,
        detected_step=onset + number % 2,
        end_step=onset + 1 if number % 2 else None,
        summary=f"spike {number // 2}",
    )


class Mortal(SqlOutbox):
    """An outbox that kills its own process at a named place, the `after`-th time it comes there."""

    place, after = "", 0

    def die_at(self, place: str) -> None:
        if place == self.place:
            self.after -= 1
            if self.after < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def claim(self, *arguments: Any) -> Any:
        self.die_at("before claim")
        claimed = super().claim(*arguments)
        if claimed:
            self.die_at("after claim")
        return claimed

    def sent(self, *arguments: Any) -> None:
        self.die_at("after send")
        super().sent(*arguments)
        self.die_at("after mark")


def connect(path: str) -> sa.Engine:
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 20}, execution_options={"compiled_cache": COMPILED})

    @sa.event.listens_for(engine, "connect")
    def _(connection: Any, _: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    return engine


def live(path: str, url: str, num_findings: int, place: str, after: int) -> None:
    """Work until everything is delivered, or death."""
    engine = connect(path)
    outbox = Mortal(engine)
    outbox.place, outbox.after = place, after
    outbox.release()
    worker = Worker(receiver="hook", notifier=Webhook(url=SecretStr(url)), outbox=outbox, http=HTTP)
    worker.bucket.tokens = 1e9
    alerting, ends = Alerting(POLICY), time.monotonic() + 60
    while time.monotonic() < ends:
        with engine.begin() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE") if not connection.connection.in_transaction else None
            offset = connection.scalar(sa.select(consumers.c.offset).where(consumers.c.name == "detection")) or 0
            if offset < num_findings:
                # The engine is restored from an older snapshot: it says again what it said before.
                alerting.apply(connection, RUN, [finding(number) for number in range(max(0, offset - 4), offset + 1)], time.time())
                connection.execute(consumers.update().values(offset=offset + 1))
            outbox.die_at("in transaction")
        with engine.begin() as connection:
            alerting.tick(connection, time.time())
        if worker.step() > 0.2 and offset >= num_findings and worker.outbox.next_at("hook") is None:
            return


def prepare(path: str) -> None:
    """The control store with one run, and a consumer that has read nothing yet."""
    engine = connect(path)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(runs.insert().values(id="run1", project="smol", name="3b", created_at=0.0, updated_at=0.0))
        connection.execute(consumers.insert().values(name="detection", offset=0, updated_at=0.0))


def main() -> None:
    """For each line of arguments on stdin, a forked child that lives by them and may be killed after `seconds`; its exit status on stdout."""
    with tempfile.TemporaryDirectory() as folder:  # once to the end, so that the children find everything imported and compiled
        prepare(f"{folder}/warm.db")
        live(f"{folder}/warm.db", json.loads(sys.stdin.readline()), 2, "", 0)
    for line in sys.stdin:
        *arguments, seconds = json.loads(line)
        child = os.fork()
        if child == 0:
            live(*arguments)
            os._exit(0)
        ends, gone = time.monotonic() + (seconds or 60), 0
        while not gone and time.monotonic() < ends:
            gone, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.002)
        if not gone:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
