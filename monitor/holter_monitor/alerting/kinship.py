"""Which incident speaks for which: one cause, one message. In the caller's transaction; tells nobody by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import sqlalchemy as sa

from holter_monitor.diagnosis.symptoms import explains
from holter_monitor.incidents import ACTIVE, Change, Incident
from holter_monitor.store.tables import incidents


def explained(incident: Incident, current: Sequence[Incident]) -> list[Change]:
    """Whether another incident that is known explains this one."""
    if any(other.id == incident.parent and other.is_active for other in current):
        return []
    for cause in current:
        if cause.parent is None and explains(cause, incident):
            incident.parent = cause.id
            return [_explained_by(cause)]
    return []


def taken_over(cause: Incident, current: Sequence[Incident]) -> Iterator[tuple[Incident, Change]]:
    """The symptoms that a cause which comes to light after them takes over, so that one of the two is talked about."""
    if cause.parent is not None or cause.silence is not None or cause.state == "pending":
        return
    for symptom in current:
        if symptom.parent is None and symptom.is_active and explains(cause, symptom):
            symptom.parent = cause.id
            yield symptom, _explained_by(cause)


def continued(cause: Incident, taken: Sequence[Incident]) -> list[Change]:
    """A cause that nobody has been told of goes on in the conversation of the first symptom that somebody was told of: the thread and the page
    are the same trouble's, now better understood. One that a person has seen is seen, unless it is worse than they knew."""
    told = next((symptom for symptom in taken if symptom.revision and symptom.silence is None), None)
    if told is None or cause.revision or cause.conversation is not None:
        return []
    cause.conversation = told.told_as
    if told.acknowledged_by is not None and cause.severity <= told.severity:
        cause.state, cause.acknowledged, cause.acknowledged_by = "acknowledged", told.acknowledged, told.acknowledged_by
    return [Change("opened", note=f"this was told as {told.kind.replace('_', ' ')}; it is the same trouble, better understood")]


def as_bad_as_its_symptoms(incident: Incident, changes: Sequence[Change], current: Sequence[Incident]) -> list[Change]:
    """A cause takes on the severity of what it explains: the symptoms keep quiet, so it must be as loud as they would have been."""
    if incident.parent is not None or not incident.is_active:
        return []
    mine = [other for other in current if other.is_active and other.parent in (None, incident.id) and explains(incident, other)]
    worst = max((other for other in mine), key=lambda other: other.severity, default=None)
    if worst is None or worst.severity <= incident.severity:
        return []
    incident.severity = worst.severity
    is_new = any(change.word in ("opened", "reopened") for change in changes)
    return [] if is_new else [Change("worsened", note=f"its symptom {worst.kind.replace('_', ' ')} is {worst.severity.word}")]


def released(connection: sa.Connection, incident: Incident) -> list[Change]:
    """A symptom that outlives its cause speaks for itself again."""
    if incident.parent is None or not incident.is_active:
        return []
    state = connection.scalar(sa.select(incidents.c.state).where(incidents.c.id == incident.parent))
    if state in ACTIVE:
        return []
    incident.parent = None
    return [Change("unexplained", note="lasts although its cause is over")]


def wake_symptoms(connection: sa.Connection, cause: str, now: float) -> None:
    """At the next tick, the symptoms of a cause that is over see whether they last."""
    connection.execute(incidents.update().where(incidents.c.parent == cause, incidents.c.state.in_(ACTIVE)).values(due_at=now))


def _explained_by(cause: Incident) -> Change:
    return Change("explained", note=f"a symptom of {cause.kind.replace('_', ' ')}: {cause.summary}")
