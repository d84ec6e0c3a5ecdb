"""Advice to runs: only where the policy allows it, always audited, withdrawn when the incident is over. A run obeys only if its user opted in."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from holter_monitor.alerting.policies import Policy
from holter_monitor.incidents import Incident
from holter_monitor.store.tables import audit, runs

_ACTOR = "policy"


def advise(connection: sa.Connection, policy: Policy, incident: Incident, run_name: str, now: float) -> list[str]:
    """Write the advice that the policy allows for this incident into the run's row; its agents hear it with their next acknowledgement.
    The advice that was not yet given before, in words."""
    allowed = [] if incident.silence else policy.advice_for(incident, run_name)
    words = {key: value for advice in allowed for key, value in _words(advice, incident).items()}
    held = _held(connection, incident.run)
    new = [key for key, value in words.items() if held.get(key) != value]
    if not new:
        return []
    reason = f"{incident.kind.replace('_', ' ')}: {incident.summary}"[:400]
    advice = {**held, **words, "reason": reason, "incident": incident.id}
    _write(connection, incident, "advise", advice, now)
    return new


def withdraw(connection: sa.Connection, incident: Incident, now: float) -> None:
    """Take back what this incident gave the reason for. Somebody else's advice (the API's) stays."""
    if _held(connection, incident.run).get("incident") == incident.id:
        _write(connection, incident, "withdraw advice", {}, now)


def _words(advice: str, incident: Incident) -> dict[str, Any]:
    rewind = incident.evidence.get("rewind") or {}
    if advice == "checkpoint_now":
        return {"checkpoint": True}
    if advice == "skip_batches":
        return {"skip_batch": True, "skip_steps": rewind.get("skip_steps")}
    if advice == "rewind_to":
        # Without a checkpoint on record there is nowhere to go back to, and a guess would cost more than it saves.
        return {"rewind_to": rewind["step"]} if isinstance(rewind.get("step"), int) else {}
    return {"stop": True}


def _held(connection: sa.Connection, run: str) -> dict[str, Any]:
    return dict(connection.scalar(sa.select(runs.c.advice).where(runs.c.id == run)) or {})


def _write(connection: sa.Connection, incident: Incident, action: str, advice: dict[str, Any], now: float) -> None:
    connection.execute(runs.update().where(runs.c.id == incident.run).values(advice=advice))
    connection.execute(
        audit.insert().values(at=now, actor=_ACTOR, action=action, subject=incident.run, detail=advice | {"incident": incident.id})
    )
