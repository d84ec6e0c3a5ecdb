"""From a change of an incident to rows of the outbox: which receiver is told what, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import sqlalchemy as sa

from holter_monitor import incidents as machine
from holter_monitor.alerting import looks
from holter_monitor.alerting.policies import Policy, Route
from holter_monitor.alerting.silences import Silence, hiding
from holter_monitor.findings import Severity
from holter_monitor.incidents import Change, Incident
from holter_monitor.notify.notice import Notice
from holter_monitor.store import incident_rows
from holter_monitor.store.tables import incidents, outbox

_TRANSITIONS = {
    "opened": "trigger",
    "reopened": "trigger",
    "unsilenced": "trigger",
    "unexplained": "trigger",
    "worsened": "update",
    "flapping": "update",
    "steadied": "update",
    "noted": "update",
    "diagnosed": "update",
    "acknowledged": "acknowledge",
    "resolved": "resolve",
    "explained": "resolve",
}


CANARY_PROJECT, CANARY_RECEIVER = "_holter", "canary"
"""The synthetic run that proves the whole way from frame to receiver; only its own receiver hears of it."""


class Run(Protocol):
    """What a notice says of the run; a row of `runs` will do."""

    @property
    def id(self) -> str: ...
    @property
    def project(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def world_size(self) -> int: ...


@dataclass
class Desk:
    """One transaction's view: the policy, the silences in force, and the time."""

    connection: sa.Connection
    policy: Policy
    link: str
    now: float
    silences: Sequence[Silence] = ()
    hidden_until: dict[str, float | None] = field(default_factory=dict)
    looks_left: int = 0
    """How many more diagnoses of this transaction may ask the stores for signals."""

    def hiding(self, run: Run, incident: Incident) -> tuple[str | None, float | None]:
        """The silence or maintenance window that hides the incident now, and when to look again."""
        silence = hiding(self.silences, incident, run.name, self.now)
        window = self.policy.maintenance_of(incident, run.name, self.now)
        if silence is not None:
            return silence.id, silence.ends
        return window if window is not None else (None, None)

    def tell(self, run: Run, incident: Incident, change: Change, symptoms: Sequence[Incident]) -> None:
        """Queue the notices that follow from one change."""
        transition = _TRANSITIONS.get(change.word)
        muted = incident.silence is not None or incident.parent is not None
        is_its_cause_s = incident.parent is not None and change.word != "explained"  # what becomes of it is its cause's to tell
        if transition is None or (muted and transition in ("trigger", "update")) or is_its_cause_s:
            if muted:
                self._withdraw(incident)
            return
        told = self._told(incident)
        if change.word == "opened" and incident.conversation:
            transition = "update"
        if transition in ("trigger", "update") and change.word != "noted":
            plan = self._plan(run, incident)
            # Who was told of the warning hears that it became a page, wherever pages go.
            plan |= {
                receiver: self._quiet(run, incident, self.now) for receiver, was_told in told.items() if was_told and receiver not in plan
            }
        else:
            plan = dict.fromkeys(told, self._quiet(run, incident, self.now))
        incident.revision += 1
        for receiver, at in plan.items():
            self._queue(self.notice(run, incident, change, symptoms), receiver, transition, at, told.get(receiver))

    def remind(self, run: Run, incident: Incident) -> None:
        """Say again that it lasts, and escalate, where either is due."""
        if self._is_waiting(incident):
            for route in self.policy.routes_of(incident, run.name):
                for number, step in enumerate(route.escalate, 1):
                    if number > incident.escalations and self.now - (incident.opened or incident.created) >= step.after:
                        incident.escalations = number
                        self._again(run, incident, step.receivers, f"not acknowledged within {step.after / 60:g} min")
                if route.repeat and self.now - self._last_told(incident) >= route.repeat:
                    incident.reminded = self.now
                    self._again(run, incident, route.receivers, "still lasts")
        self.schedule(run, incident)

    def _again(self, run: Run, incident: Incident, receivers: Sequence[str], words: str) -> None:
        incident.revision += 1
        told = self._told(incident)
        for receiver in receivers:
            notice = self.notice(run, incident, Change("reminded", note=words), [])
            self._queue(notice, receiver, "remind", self._quiet(run, incident, self.now), told.get(receiver))

    def schedule(self, run: Run, incident: Incident) -> None:
        """Write down when time alone will change the incident."""
        times = [machine.due(incident, self.policy.timing), self.hidden_until.get(incident.id), looks.next_look(incident, self.now)]
        if self._is_waiting(incident):
            for route in self.policy.routes_of(incident, run.name):
                times += [self._last_told(incident) + route.repeat] if route.repeat and not route.observe_only else []
                opened = incident.opened or incident.created
                times += [opened + step.after for step in route.escalate[incident.escalations :]]
        incident_rows.save(self.connection, incident, min((at for at in times if at is not None), default=None))

    @staticmethod
    def _is_waiting(incident: Incident) -> bool:
        """Whether somebody should still be told: active, not acknowledged, not hidden, not explained."""
        asked = incident.state in ("open", "flapping") and incident.acknowledged_by is None
        return asked and incident.silence is None and incident.parent is None

    @staticmethod
    def _last_told(incident: Incident) -> float:
        return incident.reminded or incident.opened or incident.created

    def notice(self, run: Run, incident: Incident, change: Change, symptoms: Sequence[Incident]) -> Notice:
        """The facts of the incident as they are now; each receiver's row completes the key and says the transition."""
        return Notice(
            key=f"{incident.id}:{incident.revision}",
            transition="",
            incident=incident.id,
            kind=incident.kind,
            severity=incident.severity.word,
            state=incident.state,
            project=incident.project,
            run=incident.run,
            run_name=run.name,
            world_size=run.world_size,
            summary=incident.summary[:2000],
            onset_step=incident.onset_step,
            detected_step=incident.detected_step,
            end_step=incident.end_step,
            ranks=tuple(incident.ranks),
            nodes=tuple(incident.nodes),
            cost_seconds=incident.cost_seconds,
            causes=tuple(incident.causes),
            symptoms=tuple(symptom.summary for symptom in symptoms),
            evidence=incident.evidence,
            episode=incident.episode,
            created=incident.created,
            updated=self.now,
            conversation=incident.conversation or "",
            earlier_kinds=self._earlier_kinds(incident, change),
            link=f"{self.link}/#/incidents/{incident.id}" if self.link else "",
            actor=change.actor,
            note=change.note,
        )

    def _earlier_kinds(self, incident: Incident, change: Change) -> tuple[str, ...]:
        if incident.conversation is None and change.word != "unexplained":
            return ()
        same = sa.or_(incidents.c.conversation == incident.told_as, incidents.c.id == incident.told_as)
        kinds = self.connection.scalars(sa.select(incidents.c.kind).where(incidents.c.run == incident.run, same).distinct())
        return tuple(sorted(set(kinds) - {incident.kind}))

    def _plan(self, run: Run, incident: Incident) -> dict[str, float]:
        """When each receiver is told."""
        if run.project == CANARY_PROJECT:
            return {CANARY_RECEIVER: self.now}
        plan: dict[str, float] = {}
        for route in self.policy.routes_of(incident, run.name):
            if not route.observe_only:
                wait = 0.0 if incident.severity == Severity.CRITICAL else route.group_wait
                at = _after_quiet(route, incident, self.now + wait)
                for receiver in route.receivers:
                    plan[receiver] = min(at, plan.get(receiver, at))
        return plan

    def _quiet(self, run: Run, incident: Incident, at: float) -> float:
        routes = self.policy.routes_of(incident, run.name)
        return max((_after_quiet(route, incident, at) for route in routes), default=at)

    def _told(self, incident: Incident) -> dict[str, bool]:
        """The receivers that have notices of this conversation: True = was told (or is being told), False = one waits, untried."""
        query = sa.select(outbox.c.receiver, outbox.c.status, outbox.c.attempts).where(
            outbox.c.conversation == incident.told_as, outbox.c.status.in_(("ready", "leased", "sent"))
        )
        told: dict[str, bool] = {}
        for row in self.connection.execute(query):
            told[row.receiver] = told.get(row.receiver, False) or row.status != "ready" or row.attempts > 0
        return told

    def _queue(self, notice: Notice, receiver: str, transition: str, at: float, was_told: bool | None) -> None:
        """One row of the outbox. What waits untried for the same receiver is out of date and withdrawn."""
        if transition == "resolve" and was_told is False and self._is_late(notice.subject, receiver):
            was_told = True  # its worker is behind, or the receiver away: what was due must still be said
        withdrawn = (
            self._withdraw_from(outbox.c.conversation == notice.subject, receiver) if was_told is False or transition != "resolve" else None
        )
        if not was_told:
            if transition == "resolve" and notice.severity != "critical":
                return  # came and went before anybody heard of it
            transition = "trigger" if transition != "resolve" else transition
        if withdrawn is not None and notice.severity != "critical":
            at = min(at, withdrawn)
        facts = notice.to_json() | {"transition": transition, "key": f"{notice.key}:{transition}:{receiver}"}
        values: dict[str, Any] = {"incident": notice.incident, "conversation": notice.subject, "receiver": receiver}
        values |= {"transition": transition, "notice": facts}
        values |= {
            "idempotency_key": facts["key"][:255],
            "position": int(notice.key.rpartition(":")[2]),
            "urgency": int(Severity[notice.severity.upper()]),
        }
        self.connection.execute(outbox.insert().values(**values, next_at=at, created_at=self.now))

    def _is_late(self, conversation: str, receiver: str) -> bool:
        waiting = sa.and_(outbox.c.conversation == conversation, outbox.c.receiver == receiver, outbox.c.status == "ready")
        return self.connection.scalar(sa.select(outbox.c.id).where(waiting, outbox.c.next_at <= self.now).limit(1)) is not None

    def _withdraw(self, incident: Incident) -> None:
        for receiver in self._told(incident):
            self._withdraw_from(outbox.c.incident == incident.id, receiver)

    def _withdraw_from(self, those: sa.ColumnElement[bool], receiver: str) -> float | None:
        """Take back what was never tried. When the earliest of it was due, None if there was nothing."""
        untried = sa.and_(those, outbox.c.receiver == receiver, outbox.c.status == "ready", outbox.c.attempts == 0)
        earliest: float | None = self.connection.scalar(sa.select(sa.func.min(outbox.c.next_at)).where(untried))
        if earliest is not None:
            self.connection.execute(outbox.update().where(untried).values(status="superseded"))
        return earliest


def _after_quiet(route: Route, incident: Incident, at: float) -> float:
    """Below critical, messages wait until the route's quiet hours end."""
    if route.quiet_hours is None or incident.severity == Severity.CRITICAL:
        return at
    return at + route.quiet_hours.left(at)
