"""Everything between a finding and a receiver, put together: the policy and its watch, alerting, the outbox, the workers, the canary."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import sqlalchemy as sa
from holter.frame import Frame

from holter_monitor.alerting.alerting import Alerting
from holter_monitor.alerting.canary import Canary, Perch
from holter_monitor.alerting.notices import CANARY_PROJECT, CANARY_RECEIVER
from holter_monitor.alerting.policies import Policy
from holter_monitor.alerting.policy_files import chosen
from holter_monitor.alerting.policy_watch import PolicyWatch
from holter_monitor.errors import SettingsError
from holter_monitor.notify.http import client
from holter_monitor.notify.outbox import Deliveries, Worker
from holter_monitor.notify.receivers import notifier, workers
from holter_monitor.plots import evidence_png
from holter_monitor.store import evidence, runs
from holter_monitor.store import incidents as incident_rows
from holter_monitor.store.control import Control
from holter_monitor.store.outbox import SqlOutbox
from holter_monitor.store.ports import SampleStore
from holter_monitor.store.tables import incidents, outbox, run_events, step_rollups, step_summaries

SWEEP_SECONDS = 600.0


class Dispatch:
    """`alerting` for the pipeline and the API, `deliveries` for the metrics; `start` and `stop` with the collector."""

    def __init__(
        self, control: Control, samples: SampleStore | None, *, link: str, policies: Path | None, environ: Mapping[str, str], is_alone: bool
    ) -> None:
        self._control, self._link, self._environ = control, link, environ
        try:
            policy = chosen(policies, environ, notifier)
            self._outbox = SqlOutbox(control.engine, policy.fallback)
            self.alerting = Alerting(policy, link=link, samples=samples)
            self._perch = Perch()
            self.deliveries = Deliveries(self._workers(policy))
        except ValueError as error:
            raise SettingsError(str(error)) from error
        if is_alone:
            self._outbox.release()  # the directory is ours alone: a lease can only be a killed predecessor's
        self.watch = None if policies is None else PolicyWatch(policies, environ, self.use)
        self.canary: Canary | None = None
        self._submit: Callable[[Frame, bytes], None] | None = None

    def use(self, policy: Policy) -> None:
        """Go on with this policy. Raises `ValueError` and changes nothing if one of its receivers cannot be built."""
        fresh = self._workers(policy)
        self._outbox.fallback = policy.fallback
        before, self.alerting.policy = self.alerting.policy, policy
        self.deliveries.exchange(fresh)
        self._outbox.retire([worker.receiver for worker in fresh], time.time())
        if (before.heartbeat, before.allow_private) != (policy.heartbeat, policy.allow_private):
            self._arm(policy)

    def start(self, submit: Callable[[Frame, bytes], None] | None = None) -> None:
        """`submit` puts a frame where agents' frames go; with it, and a heartbeat in the policy, the dead-man's switch is armed."""
        self._outbox.retire([worker.receiver for worker in self.deliveries.workers], time.time())
        self.deliveries.start()
        if self.watch is not None:
            self.watch.start()
        self._submit = submit
        self._arm(self.alerting.policy)

    def stop(self, timeout: float) -> None:
        for part in (self.canary, self.watch):
            if part is not None:
                part.stop()
        self.deliveries.stop(timeout)

    def _arm(self, policy: Policy) -> None:
        """The dead-man's switch as this policy wants it; a switch that another policy wanted is let go."""
        if self.canary is not None:
            self.canary.stop()
            self.canary = None
        if policy.heartbeat is None or self._submit is None:
            return
        http = client(allow_private=policy.allow_private)
        run, every = self._canary_run(), policy.heartbeat.every
        self.canary = Canary(
            run=run,
            submit=self._submit,
            sweep=partial(self._sweep, run),
            perch=self._perch,
            http=http,
            url=policy.heartbeat.url or None,
            every=min(every, 30.0),
            ping_every=every,
        )
        self.canary.start()

    @property
    def problem(self) -> str | None:
        """What is wrong, for /readyz; None if nothing is."""
        said = [part.problem for part in (self.watch, self.canary) if part is not None and part.problem is not None]
        return "; ".join(said) or None

    def _workers(self, policy: Policy) -> list[Worker]:
        made = workers(policy.receivers, self._outbox, allow_private=policy.allow_private, link=self._link, picture=self._picture)
        return [*made, Worker(receiver=CANARY_RECEIVER, notifier=self._perch, outbox=self._outbox, http=client())]

    def _picture(self, incident: str) -> bytes | None:
        with self._control.read() as connection:
            row = incident_rows.one(connection, incident)
            series = [] if row is None else evidence.series(connection, row)
        return evidence_png(series, dict(row)) if row is not None and series else None

    def _canary_run(self) -> str:
        with self._control.write() as connection:
            row, _ = runs.find_or_create(connection, {"project": CANARY_PROJECT, "name": "canary", "world_size": 1}, time.time())
            return str(row["id"])

    def _sweep(self, run: str) -> None:
        """A canary every half minute leaves no trace that is older than ten minutes."""
        old = time.time() - SWEEP_SECONDS
        with self._control.write() as connection:
            gone = sa.select(incidents.c.id).where(incidents.c.project == CANARY_PROJECT, incidents.c.updated_at < old)
            connection.execute(outbox.delete().where(outbox.c.incident.in_(gone)))
            connection.execute(incidents.delete().where(incidents.c.id.in_(gone)))
            for table in (step_summaries, step_rollups):
                connection.execute(table.delete().where(table.c.run == run, table.c.at < old))
            connection.execute(run_events.delete().where(run_events.c.run == run, run_events.c.at < old))
