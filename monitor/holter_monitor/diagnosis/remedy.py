"""What to go back to and what to leave out: the rewind point and the skip list of a loss incident, ready to use."""

from __future__ import annotations

from typing import Any

from holter_monitor.diagnosis.case import Case

_LOSS = ("loss_spike", "loss_divergence", "loss_shift", "grad_explosion", "non_finite")
_BATCH = ("batch", "batches", "batch_id", "batch_hash", "documents", "shards")


def remedy(case: Case) -> dict[str, Any]:
    """For the evidence of a loss incident: `{"rewind": {"step", "path", "before_step", "skip_steps"}, "precursor": …, "batches": …}`; nothing
    for other kinds. The rewind point lies before the precursor too: what began to go wrong there is in the weights."""
    incident = case.incident
    if incident.kind not in _LOSS or incident.onset_step < 0:
        return {}
    found: dict[str, Any] = {}
    first = incident.onset_step
    early = [o for o in case.others if o.kind in _LOSS and 0 <= o.onset_step < first]
    if early:
        first = min(other.onset_step for other in early)
        found["precursor"] = {"step": first, "summary": min(early, key=lambda other: other.onset_step).summary}
    saved = [e for e in case.events if e.word == "checkpoint" and e.step is not None and e.step < first]
    newest = max(saved, key=lambda event: event.step or 0, default=None)
    last = max(first, case.last_step)
    rewind: dict[str, Any] = {"before_step": first, "skip_steps": [first, last]}
    if newest is not None:
        rewind |= {"step": newest.step, "path": str(newest.attrs.get("path", ""))[:500]}
    found["rewind"] = rewind
    batches = _batches(case, first, last)
    return found | ({"batches": batches} if batches else {})


def _batches(case: Case, first: int, last: int) -> list[dict[str, Any]]:
    """What the loader told of the batches of these steps, by `run.event("batch", step=…, …)`."""
    told = [e for e in case.events if e.word in _BATCH and e.step is not None and first <= e.step <= last]
    return [{"step": event.step, "rank": event.rank, **dict(list(event.attrs.items())[:8])} for event in told[:50]]
