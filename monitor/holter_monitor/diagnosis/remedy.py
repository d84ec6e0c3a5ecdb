"""What to go back to and what to leave out: the rewind point and the skip list of a loss incident, ready to use."""

from __future__ import annotations

from typing import Any

from holter_monitor.diagnosis.case import Case
from holter_monitor.incidents import Incident

_LOSS = ("loss_spike", "loss_divergence", "loss_shift", "grad_explosion", "non_finite")


def remedy(case: Case) -> dict[str, Any]:
    """For the evidence of a loss incident: `{"rewind": {"step", "path", "before_step", "skip_steps"}, "precursor": …, "batches": …}`; nothing
    for other kinds. The rewind point lies before the precursor too: what began to go wrong there is in the weights."""
    steps = span(case)
    if steps is None:
        return {}
    found: dict[str, Any] = {}
    first, last = steps
    precursor = min(_earlier(case), key=lambda other: other.onset_step, default=None)
    if precursor is not None:
        found["precursor"] = {"step": first, "summary": precursor.summary}
    saved = [e for e in case.events if e.word == "checkpoint" and e.step is not None and e.step < first]
    newest = max(saved, key=lambda event: event.step or 0, default=None)
    rewind: dict[str, Any] = {"before_step": first, "skip_steps": [first, last]}
    if newest is not None:
        rewind |= {"step": newest.step, "path": str(newest.attrs.get("path", ""))[:500]}
    found["rewind"] = rewind
    batches = [{"step": event.step, "rank": event.rank, **dict(list(event.attrs.items())[:8])} for event in case.batches]
    return found | ({"batches": batches} if batches else {})


def span(case: Case) -> tuple[int, int] | None:
    """The steps that a loss incident spans, from its precursor on: what to go back before, and what to skip. None: it is about no loss."""
    incident = case.incident
    if incident.kind not in _LOSS or incident.onset_step < 0:
        return None
    first = min([incident.onset_step, *(other.onset_step for other in _earlier(case))])
    return first, max(first, case.last_step)


def _earlier(case: Case) -> list[Incident]:
    return [other for other in case.others if other.kind in _LOSS and 0 <= other.onset_step < case.incident.onset_step]
