"""Few ranks stand in another place of the program than all the others, who wait for them."""

from __future__ import annotations

from holter_monitor.diagnosis.case import Case
from holter_monitor.diagnosis.cause import Cause, Clue, beside

FEW = 0.25


def _apart(case: Case) -> str | None:
    """Most ranks in one place, and at most a quarter of all in others."""
    counts: dict[str, int] = {}
    for group in case.incident.evidence.get("stacks") or []:
        if isinstance(group, dict):
            place = str(group.get("where", ""))
            counts[place] = counts.get(place, 0) + int(group.get("count", 0))
    total = sum(counts.values())
    others = total - max(counts.values(), default=0)
    return str(case.incident.evidence.get("standing", "")) if total > 1 and 0 < others <= FEW * total else None


STANDING_ELSEWHERE = Cause(
    name="standing_elsewhere",
    explains=("hang",),
    sentence="the others wait for ranks that stand in another place of the program",
    action="read the stack of the few: a read that does not return (storage), a branch that only they took, an exception being handled, a lock. "
    "Restart from {rewind} once it is known",
    clues=(Clue(3.5, _apart), Clue(-1.5, beside("rank_lost")), Clue(-1.0, beside("agent_silent"))),
)
