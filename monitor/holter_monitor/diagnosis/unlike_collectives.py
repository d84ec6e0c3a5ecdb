"""Ranks called different collectives, or the same with other sizes, at the same place of a process group."""

from __future__ import annotations

from holter_monitor.diagnosis.case import Case
from holter_monitor.diagnosis.cause import Cause, Clue


def _unlike(case: Case) -> str | None:
    evidence = case.incident.evidence
    return f"the flight recorders say: {evidence.get('collectives')}" if evidence.get("called_otherwise") else None


UNLIKE_COLLECTIVES = Cause(
    name="unlike_collectives",
    explains=("hang",),
    sentence="ranks called different collectives at the same place, which can never meet",
    action="compare the code path of the ranks that called otherwise (a condition on the rank, an uneven batch, a tensor of another size); "
    "waiting does not help",
    clues=(Clue(5.0, _unlike),),
)
