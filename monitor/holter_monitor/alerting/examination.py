"""The diagnosis of an incident as the records stand now, and again as long as evidence may still come in."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from holter_monitor.alerting.notices import Desk, Run
from holter_monitor.diagnosis import Case, Signal, diagnose
from holter_monitor.diagnosis.leads import leads
from holter_monitor.diagnosis.remedy import remedy, span
from holter_monitor.diagnosis.symptoms import SURE
from holter_monitor.errors import MonitorError
from holter_monitor.findings import Severity
from holter_monitor.incidents import Change, Incident
from holter_monitor.store import signals
from holter_monitor.store.ports import SampleStore

logger = logging.getLogger(__name__)
Remedied: TypeAlias = "tuple[bool, bool]"
LOOKS, _HOST_LOOKS = 32, 4
"""So many incidents of one transaction are diagnosed with the signals of ranks and of hosts: a look costs 1 and 20 ms."""
_BESIDE_SECONDS = 300.0


@dataclass(frozen=True)
class Examination:
    samples: SampleStore | None = None
    """Where the signals of hosts and processes are; without it, diagnosis does without them."""

    def examine(self, desk: Desk, run: Run, incident: Incident, current: Sequence[Incident], *, knew: Remedied) -> list[Change]:
        """Rank the causes anew. A change is reported when somebody who was told of one cause should hear of another, or of a remedy that nobody
        knew; `knew` is `remedied` as it was before the incident's newest findings."""
        before = incident.causes
        incident.causes = self._causes(desk, run, incident, current)
        return _news(before, incident) or _remedy_news(knew, incident)

    def _causes(self, desk: Desk, run: Run, incident: Incident, current: Sequence[Incident]) -> list[dict[str, object]]:
        """In a storm (hundreds of incidents at once) without the signals, which cost a query."""
        others = [other for other in current if other is not incident and _is_beside(other, incident)]
        case = Case(incident=incident, others=others, world_size=run.world_size)
        if desk.looks_left > 0:
            desk.looks_left -= 1
            found = signals.of_ranks(desk.connection, incident, is_everywhere=case.is_everywhere)
            found |= self._sampled(run, incident, found.get("step_time_seconds")) if desk.looks_left > LOOKS - _HOST_LOOKS else {}
            case = replace(case, signals=found, events=signals.events(desk.connection, incident))
            steps = span(case)
            case = replace(case, batches=signals.batches(desk.connection, incident, *steps)) if steps else case
        causes = diagnose(case)
        known = {key: value for key, value in incident.evidence.items() if key != "look_at"}
        incident.evidence = {**known, **remedy(case), **leads(case, causes)}
        return causes

    def _sampled(self, run: Run, incident: Incident, step_time: Signal | None) -> dict[str, Signal]:
        if self.samples is None:
            return {}
        seconds = step_time.before if step_time else None
        try:
            hosts = signals.of_hosts(self.samples, incident, step_seconds=seconds)
            return hosts | signals.of_processes(self.samples, incident, run.world_size, step_seconds=seconds)
        except MonitorError as error:  # the sample store is away: the alert must not wait for it
            logger.warning("no sampled signals for the diagnosis of %s: %s", incident.id, error)
            return {}


def _is_beside(other: Incident, incident: Incident) -> bool:
    return abs(other.created - incident.created) <= _BESIDE_SECONDS or other.parent == incident.id or other.id == incident.parent


def _news(before: list[dict[str, object]], incident: Incident) -> list[Change]:
    if not incident.is_active or not incident.causes:
        return []
    first = incident.causes[0]
    if first["confidence"] < SURE or (before and before[0]["cause"] == first["cause"]):
        return []
    return [Change("diagnosed", note=f"the likely cause is now known: {first['sentence']}")]


def remedied(incident: Incident) -> Remedied:
    """Whether the checkpoint to go back to is known, and what the loader told of the batches."""
    rewind, batches = incident.evidence.get("rewind") or {}, incident.evidence.get("batches") or ()
    return "step" in rewind, any(set(batch) - {"step", "rank", "batch_hash", "batch_id"} for batch in batches)


def _remedy_news(knew: Remedied, incident: Incident) -> list[Change]:
    """Declared events travel behind the rows of their steps: whoever was paged without them is told."""
    knows = remedied(incident)
    if (
        incident.severity < Severity.CRITICAL
        or not incident.is_active
        or not any(now > before for now, before in zip(knows, knew, strict=True))
    ):
        return []
    return [
        Change("diagnosed", note="the checkpoint to go back to is now known" if knows[0] and not knew[0] else "the batches are now known")
    ]
