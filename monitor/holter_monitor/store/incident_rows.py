"""Incidents and their findings as rows of the control store, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import sqlalchemy as sa

from holter_monitor.findings import Finding, Severity
from holter_monitor.incidents import ACTIVE, Change, Incident
from holter_monitor.store.tables import incident_findings, incident_history, incidents

# Where a column's name is not the attribute's: times end in `_at`.
_RENAMED = {
    "created": "created_at",
    "updated": "updated_at",
    "over_since": "over_since_at",
    "opened": "opened_at",
    "reminded": "reminded_at",
    "acknowledged": "acknowledged_at",
    "resolved": "resolved_at",
}
_RECENT = 64
"""Of an incident that comes and goes for days, the findings that are over and older than so many stay in the store."""
_SAME = [field.name for field in fields(Incident) if field.name not in ("severity", "findings", *_RENAMED)]
_COLUMNS = {**{name: name for name in _SAME}, **_RENAMED}


def load_current(connection: sa.Connection, run: str, since: float) -> list[Incident]:
    """The incidents of the run that are active or were resolved after `since`, oldest first."""
    current = sa.or_(incidents.c.state.in_(ACTIVE), incidents.c.resolved_at >= since)
    return load_where(connection, sa.and_(incidents.c.run == run, current))


def load_where(connection: sa.Connection, condition: sa.ColumnElement[bool], limit: int | None = None) -> list[Incident]:
    """The incidents that fulfil the condition, oldest first, locked until the transaction ends (where the database locks rows)."""
    query = sa.select(incidents).where(condition).order_by(incidents.c.created_at, incidents.c.id).limit(limit).with_for_update()
    rows = connection.execute(query).all()
    findings: dict[str, dict[str, Finding]] = {row.id: {} for row in rows}
    if rows:
        every = incident_findings.alias("every")
        newest = sa.select(sa.func.max(every.c.number)).where(every.c.incident == incident_findings.c.incident).scalar_subquery()
        kept = sa.or_(sa.not_(incident_findings.c.is_over), incident_findings.c.number > newest - _RECENT)
        query = sa.select(incident_findings).where(incident_findings.c.incident.in_(findings), kept).order_by(incident_findings.c.number)
        for said in connection.execute(query):
            findings[said.incident][said.id] = _finding(said.finding)
    return [_incident(row, findings[row.id]) for row in rows]


def load_finding(connection: sa.Connection, key: str) -> tuple[str, Finding] | None:
    """The incident that the finding of this identity belongs to, and its newest word; None if it was never heard."""
    row = connection.execute(sa.select(incident_findings).where(incident_findings.c.id == key)).one_or_none()
    return None if row is None else (row.incident, _finding(row.finding))


def save(connection: sa.Connection, incident: Incident, due_at: float | None) -> None:
    """Write the incident as it is now. `due_at`: when time alone will change it."""
    values: dict[str, Any] = {column: getattr(incident, name) for name, column in _COLUMNS.items()}
    values |= {"severity": incident.severity.word, "due_at": due_at}
    if not connection.execute(incidents.update().where(incidents.c.id == incident.id).values(values)).rowcount:
        connection.execute(incidents.insert().values(values))


def save_findings(connection: sa.Connection, incident: Incident, keys: Sequence[str]) -> None:
    """Write the newest word of these findings of the incident."""
    last = connection.scalar(sa.select(sa.func.max(incident_findings.c.number)).where(incident_findings.c.incident == incident.id)) or 0
    known = set(connection.scalars(sa.select(incident_findings.c.id).where(incident_findings.c.id.in_(keys))))
    for key in dict.fromkeys(keys):
        finding = incident.findings[key]
        said = {"finding": asdict(finding) | {"severity": finding.severity.word}, "is_over": finding.is_over}
        if key in known:
            connection.execute(incident_findings.update().where(incident_findings.c.id == key).values(said))
        else:
            last += 1
            connection.execute(incident_findings.insert().values(said | {"id": key, "incident": incident.id, "number": last}))


def add_history(connection: sa.Connection, incident: Incident, change: Change, now: float) -> None:
    values = {"change": change.word, "actor": change.actor, "note": change.note, "severity": incident.severity.word}
    connection.execute(incident_history.insert().values(incident=incident.id, at=now, **values))


def _incident(row: sa.Row[Any], findings: dict[str, Finding]) -> Incident:
    values = {name: row._mapping[column] for name, column in _COLUMNS.items()}
    return Incident(severity=Severity[row.severity.upper()], findings=findings, **values)


def _finding(facts: dict[str, Any]) -> Finding:
    facts = {**facts, "severity": Severity[facts["severity"].upper()]}
    return Finding(**facts | {"ranks": tuple(facts["ranks"]), "nodes": tuple(facts["nodes"])})
