"""Findings in, incidents and notices out, all in the caller's transaction: what was decided and what must be sent commit together.

Everything here may be replayed. A finding that was heard before is known by its identity, changes nothing and sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from holter_monitor import incidents as machine
from holter_monitor.alerting import kinship, looks, reactions
from holter_monitor.alerting.examination import LOOKS, Examination, remedied
from holter_monitor.alerting.notices import CANARY_PROJECT, Desk, Run
from holter_monitor.alerting.policies import Policy
from holter_monitor.alerting.silences import Silence
from holter_monitor.findings import Finding
from holter_monitor.incidents import Change, Incident
from holter_monitor.store import incident_rows as rows
from holter_monitor.store import stack_requests
from holter_monitor.store.ports import SampleStore
from holter_monitor.store.tables import audit, incidents, runs, silences

ASKER = "holter"
"""Who asks for stacks when a hang opens; while the answer is on its way NCCL's patience (600 s) has most of its time left."""


class UnknownIncident(LookupError):
    """There is no incident of this id."""


@dataclass
class Touched:
    """An incident that the findings at hand have changed, and how."""

    incident: Incident
    changes: list[Change] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def add(self, key: str, changes: list[Change]) -> None:
        """One thing is told once: what is new anyhow need not be said to have grown."""
        is_new = any(change.word in ("opened", "reopened") for change in self.changes)
        self.changes += [
            change for change in changes if change not in self.changes and not (is_new and change.word in ("worsened", "updated"))
        ]
        self.keys.append(key)


class Alerting:
    """The policy at work. `policy` may be exchanged at any time; what was queued before stays queued."""

    def __init__(self, policy: Policy, *, link: str = "", samples: SampleStore | None = None) -> None:
        self.policy = policy
        self.link = link.rstrip("/")
        self.examination = Examination(samples)

    def apply(self, connection: sa.Connection, run: Run, findings: Sequence[Finding], now: float) -> None:
        """Take the findings of one run into its incidents, and queue the notices that follow."""
        if not findings:
            return
        current = rows.load_current(connection, run.id, now - self.policy.timing.rejoin_seconds)
        desk = self._desk(connection, now)
        touched: dict[str, Touched] = {}
        knew = {incident.id: remedied(incident) for incident in current}
        for finding in findings:
            self._hear(desk, run, finding, current, touched)
        for it in touched.values():  # all of them before any history: one may become the symptom of another
            rows.save(connection, it.incident, None)
        for it in touched.values():
            news = self.examination.examine(desk, run, it.incident, current, knew=knew.get(it.incident.id, (False, False)))
            is_told_anyhow = any(change.word != "updated" for change in it.changes)
            self._settle(desk, run, it.incident, it.changes + ([] if is_told_anyhow else news), current)
            rows.save_findings(connection, it.incident, it.keys)

    def _hear(self, desk: Desk, run: Run, finding: Finding, current: list[Incident], touched: dict[str, Touched]) -> None:
        timing, key = self.policy.timing, machine.identity(run.id, finding)
        incident = _owner(desk.connection, key, current)
        if incident is None and run.project != CANARY_PROJECT:  # each canary is an incident of its own
            incident = next((i for i in current if machine.belongs(i, finding, desk.now, timing)), None)
        if incident is None:
            incident, changes = machine.opened(run.id, run.project, finding, desk.now, timing)
            current.append(incident)
        else:
            changes = machine.heard(incident, finding, desk.now, timing)
            if not changes:
                return
        touched.setdefault(incident.id, Touched(incident)).add(key, changes)

    def _settle(self, desk: Desk, run: Run, incident: Incident, changes: list[Change], current: list[Incident]) -> None:
        """Write the incident and tell whom it concerns."""
        if any(change.word in ("opened", "reopened", "diagnosed") for change in changes):
            changes = changes + kinship.explained(incident, current)
        changes = changes + kinship.as_bad_as_its_symptoms(incident, changes, current)
        changes = changes + self._hidden(desk, run, incident) + self._react(desk, run, incident, changes)
        taken = list(kinship.taken_over(incident, current))
        goes_on = kinship.continued(incident, [symptom for symptom, _ in taken])
        changes = [*goes_on, *(change for change in changes if change.word not in ("opened", "unsilenced"))] if goes_on else changes
        rows.save(desk.connection, incident, None)
        told = [change for change in changes if change.word != "updated"]
        for change in told:
            rows.add_history(desk.connection, incident, change, desk.now)
            desk.tell(run, incident, change, [other for other in current if other.parent == incident.id])
        desk.schedule(run, incident)
        if any(change.word == "resolved" for change in changes):
            kinship.wake_symptoms(desk.connection, incident.id, desk.now)
        for symptom, change in taken:
            rows.add_history(desk.connection, symptom, change, desk.now)
            if symptom.told_as != incident.told_as:
                desk.tell(run, symptom, change, [])
            desk.schedule(run, symptom)
        cause = next((other for other in current if other.id == incident.parent), None)
        if cause is not None and cause.is_active and cause.severity < incident.severity:
            self._settle(desk, run, cause, [], current)  # a symptom that pages must page in its cause's name

    def _react(self, desk: Desk, run: Run, incident: Incident, changes: list[Change]) -> list[Change]:
        if incident.kind == "hang" and any(change.word in ("opened", "reopened") for change in changes):
            stack_requests.ask(desk.connection, run.id, ASKER, now=desk.now, incident=incident.id, reason=incident.summary)
        if any(change.word == "resolved" for change in changes):
            reactions.withdraw(desk.connection, incident, desk.now)
        elif self.policy.reactions and incident.is_active and incident.state != "pending":
            given = reactions.advise(desk.connection, self.policy, incident, run.name, desk.now)
            return [Change("advised", "policy", ", ".join(given))] if given else []
        return []

    def tick(self, connection: sa.Connection, now: float, limit: int = 500) -> int:
        """Do what time alone makes due: resolve, look again for the cause, remind, escalate, end silences. How many incidents were looked at."""
        due = rows.load_where(connection, incidents.c.due_at <= now, limit)
        desk = self._desk(connection, now)
        mine = {incident.id: incident for incident in due}  # one object an incident: what the one does to the other must not be overwritten
        for incident in due:
            run = connection.execute(sa.select(runs).where(runs.c.id == incident.run)).one()
            was_hidden = incident.silence
            changes = machine.advanced(incident, now, self.policy.timing)
            changes += kinship.released(connection, incident)
            is_told_now = any(change.word == "opened" for change in changes)
            looks_again = (
                looks.is_fresh(incident, now) and incident.parent is None and run.project != CANARY_PROJECT and desk.looks_left > 0
            )
            kin = [incident]
            if is_told_now or looks_again:  # what it explains, and what explains it, may have come to light meanwhile
                known = rows.load_current(connection, run.id, now - self.policy.timing.rejoin_seconds)
                kin += [mine.get(other.id, other) for other in known if other.id != incident.id]
            if looks_again:
                changes += self.examination.examine(desk, run, incident, kin[1:], knew=remedied(incident))
            self._settle(desk, run, incident, changes, kin)
            if not changes and was_hidden == incident.silence:
                desk.remind(run, incident)
        return len(due)

    def _hidden(self, desk: Desk, run: Run, incident: Incident) -> list[Change]:
        silence, until = desk.hiding(run, incident)
        before, incident.silence = incident.silence, silence
        desk.hidden_until[incident.id] = until
        if silence and not before:
            return [Change("silenced", note=silence)]
        return [Change("unsilenced")] if before and not silence and incident.is_active else []

    def acknowledge(self, connection: sa.Connection, incident: str, actor: str, now: float) -> Incident:
        """A person has seen it. Raises `UnknownIncident`."""
        return self._act(connection, incident, actor, now, lambda it: machine.acknowledged(it, actor, now))

    def resolve(self, connection: sa.Connection, incident: str, actor: str, now: float) -> Incident:
        """A person says that it is over."""
        return self._act(connection, incident, actor, now, lambda it: machine.resolved(it, actor, now))

    def note(self, connection: sa.Connection, incident: str, actor: str, text: str, now: float) -> Incident:
        """A person's words, into the history and to those who were told of the incident."""
        return self._act(connection, incident, actor, now, lambda _: [Change("noted", actor, text)])

    def _act(
        self, connection: sa.Connection, incident: str, actor: str, now: float, action: Callable[[Incident], list[Change]]
    ) -> Incident:
        found = rows.load_where(connection, incidents.c.id == incident)
        if not found:
            raise UnknownIncident(incident)
        changes = action(found[0])
        run = connection.execute(sa.select(runs).where(runs.c.id == found[0].run)).one()
        if changes:
            self._settle(self._desk(connection, now), run, found[0], changes, [found[0]])
            _audit(connection, actor, changes[0].word, incident, detail={}, now=now)
        return found[0]

    def add_silence(
        self, connection: sa.Connection, *, matchers: dict[str, str], author: str, reason: str, starts: float, ends: float, now: float
    ) -> Silence:
        """Hide what matches, from `starts` to `ends`. Notices that wait are withdrawn. Raises `ValueError`, naming the field."""
        silence = Silence(id=uuid4().hex[:12], matchers=matchers, author=author, reason=reason, starts=starts, ends=ends)
        values = {"id": silence.id, "matchers": matchers, "author": author, "reason": reason, "starts_at": starts, "ends_at": ends}
        connection.execute(silences.insert().values(**values, created_at=now))
        _audit(connection, author, "silence", silence.id, detail={"matchers": matchers, "reason": reason, "ends_at": ends}, now=now)
        self._look_again(connection, silence, max(now, starts))
        return silence

    def end_silence(self, connection: sa.Connection, silence: str, actor: str, now: float) -> None:
        """End a silence now; what still lasts is told at the next tick. Raises `LookupError`."""
        row = connection.execute(sa.select(silences).where(silences.c.id == silence)).one_or_none()
        if row is None:
            raise LookupError(silence)
        if row.starts_at >= now:  # a window to come is called off: with its end before its start it could not be read again
            connection.execute(silences.delete().where(silences.c.id == silence))
        else:
            connection.execute(silences.update().where(silences.c.id == silence).values(ends_at=min(row.ends_at, now)))
        _audit(connection, actor, "end silence", silence, detail={}, now=now)
        self._look_again(connection, _silence(row), now)

    @staticmethod
    def _look_again(connection: sa.Connection, silence: Silence, at: float) -> None:
        for incident in rows.load_where(connection, incidents.c.state.in_(machine.ACTIVE)):
            name = connection.scalar(sa.select(runs.c.name).where(runs.c.id == incident.run)) or ""
            if silence.hides(incident, name):
                sooner = sa.or_(incidents.c.due_at.is_(None), incidents.c.due_at > at)
                connection.execute(incidents.update().where(incidents.c.id == incident.id, sooner).values(due_at=at))

    def _desk(self, connection: sa.Connection, now: float) -> Desk:
        query = sa.select(silences).where(silences.c.ends_at > now)
        return Desk(connection, self.policy, self.link, now, [_silence(row) for row in connection.execute(query)], looks_left=LOOKS)


def _owner(connection: sa.Connection, key: str, current: list[Incident]) -> Incident | None:
    """The incident that this finding already belongs to, if it was heard before."""
    for incident in current:
        if key in incident.findings:
            return incident
    said = rows.load_finding(connection, key)
    if said is None:
        return None
    owner = next((incident for incident in current if incident.id == said[0]), None)
    if owner is None:
        owner = rows.load_where(connection, incidents.c.id == said[0])[0]
        current.append(owner)
    owner.findings[key] = said[1]
    return owner


def _silence(row: sa.Row[Any]) -> Silence:
    return Silence(id=row.id, matchers=row.matchers, author=row.author, reason=row.reason, starts=row.starts_at, ends=row.ends_at)


def _audit(connection: sa.Connection, actor: str, action: str, subject: str, *, detail: dict[str, Any], now: float) -> None:
    connection.execute(audit.insert().values(at=now, actor=actor, action=action, subject=subject, detail=detail))
