"""Between two optimizer steps nothing changes a weight: where something did, the rank's memory is at fault."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from holter.fingerprint import BUCKETS, Slot

from holter_monitor.consistency.replicas import located
from holter_monitor.consistency.rounds import Round
from holter_monitor.findings import Finding, Severity

KIND = "memory_corruption"


@dataclass(kw_only=True)
class AtRest:
    """Judges the at-rest words of rounds. Needs no replica, so it is what watches shards that exist once (ZeRO-3, FSDP)."""

    is_moved: bool = False
    """Most ranks' weights change between steps: the training does it (averaging, clipping, a loaded checkpoint), and the check says so once."""

    said: list[int] = field(default_factory=list)

    def judge(self, round_: Round) -> list[Finding]:
        masks = round_.words[:, Slot.AT_REST]
        checked = masks >= 0
        changed = np.flatnonzero(checked & (masks != 0))
        if not len(changed):
            return []
        places = {place: self._where(round_, place) for place in changed[:64].tolist()}
        # Memory does not fail on most ranks at once. Of one or two ranks that says nothing; a single flipped bit is no averaging, though.
        is_one_bit = checked.sum() <= 2 and any(", bit " in where for where in places.values())
        if len(changed) * 2 > checked.sum() and not is_one_bit:
            return self._moved(round_)
        fresh = [place for place in places if int(round_.ranks[place]) not in self.said]
        self.said = (self.said + [int(round_.ranks[place]) for place in fresh])[-4096:]
        return [_finding(round_, place, places[place]) for place in fresh]

    def _where(self, round_: Round, place: int) -> str:
        mask = int(round_.words[place, Slot.AT_REST])
        layout = round_.layouts.get(int(round_.words[place, Slot.LAYOUT]))
        if layout is None or mask not in [1 << bucket for bucket in range(BUCKETS)]:
            return ""
        bucket = layout.data_chunk(round_.index).buckets(round_.index)[mask.bit_length() - 1]
        return located(round_.words[place, Slot.AT_REST_CHANGE : Slot.AT_REST_CHANGE + 3], bucket)

    def _moved(self, round_: Round) -> list[Finding]:
        if self.is_moved:
            return []
        self.is_moved = True
        summary = "Weights change between optimizer steps on most ranks: averaging, clipping or a loaded checkpoint; the at-rest check is blind here"
        return [_said(round_, Severity.INFO, "run", (), summary, evidence={"declare": "run.watch(..., at_rest=False) where this is meant"})]


def _finding(round_: Round, place: int, where: str) -> Finding:
    rank = int(round_.ranks[place])
    what = where or "some of its tensors"
    summary = f"Memory of rank {rank} changed between two optimizer steps: {what}. Drain its node and go back to the last checkpoint"
    evidence: dict[str, object] = {
        "located": where or None,
        "usual_cause": "a memory error (no ECC, or beyond what it corrects), or code that writes out of bounds",
        "legitimate": "code of the training that changes weights outside of the optimizer on this rank only",
    }
    return _said(round_, Severity.CRITICAL, f"rank {rank}", (rank,), summary, evidence=evidence)


def _said(round_: Round, severity: Severity, scope: str, ranks: tuple[int, ...], summary: str, *, evidence: dict[str, object]) -> Finding:
    return Finding(
        kind=KIND,
        severity=severity,
        scope=scope,
        onset_step=round_.step,
        detected_step=round_.step,
        ranks=ranks,
        summary=summary,
        evidence={**evidence, "window": [max(0, round_.step - 50), round_.step]},
    )
