"""A rank never entered the collective in which the others wait."""

from __future__ import annotations

from holter_monitor.diagnosis.case import Case
from holter_monitor.diagnosis.cause import Cause, Clue, beside


def _missing(case: Case) -> str | None:
    evidence = case.incident.evidence
    return f"the flight recorders say: {evidence.get('collectives')}" if evidence.get("never_entered") else None


MISSING_FROM_COLLECTIVE = Cause(
    name="missing_from_collective",
    explains=("hang",),
    sentence="the ranks wait in a collective that {ranks} never entered",
    action="look at the stack of {ranks}: data that does not come, a branch that only they took, an exception being handled. "
    "Restart from {rewind} once it is known",
    clues=(Clue(5.0, _missing), Clue(-1.5, beside("rank_lost"))),
)
