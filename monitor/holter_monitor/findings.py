"""What a detector says: a finding is one detector's word about one moment; findings become incidents."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any


class Severity(IntEnum):
    """How loudly to say it: recorded, Slack, page."""

    INFO = 1
    WARNING = 2
    CRITICAL = 3

    @property
    def word(self) -> str:
        return self.name.lower()


KINDS = (
    "loss_spike",
    "loss_divergence",
    "loss_plateau",
    "loss_noise",
    "loss_shift",
    "non_finite",
    "grad_explosion",
    "grad_vanishing",
    "throughput_drop",
    "throughput_decline",
    "throughput_stalls",
    "step_locked_stalls",
    "data_stall",
    "data_position",
    "straggler",
    "tp_duplicate_shards",
    "replica_mismatch",
    "rank_disagreement",
    "memory_corruption",
    "rank_lost",
    "hang",
    "gpu_throttle",
    "gpu_error",
    "memory_growth",
    "disk_pressure",
    "checkpoint_overdue",
    "checkpoint_lost",
    "eval_overdue",
    "reference_gap",
    "restart_storm",
    "agent_silent",
    "detector_failed",
)
"""Every name that a finding can have. `detector_failed` is Holter speaking of itself: a detector raised and is off for the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One detector's word about one moment of one run.

    `(run, kind, scope, onset_step)` is the identity: the same records give the same identity after a restart, so a finding that is said
    again updates its incident and opens no second one. A finding is said when the trouble is seen, again when it grows worse or its picture
    changes (`severity`, `cost_seconds`, `ranks`), and a last time with `end_step` set when it has passed.
    """

    kind: str
    severity: Severity
    onset_step: int
    """Where the trouble began, as well as can be told."""
    detected_step: int
    """The step whose record gave it away."""
    summary: str
    """One sentence with the numbers, readable on a phone."""
    scope: str = "run"
    """What it is about, part of the identity: "run", "rank 17", "node gpu-12", "layers.*.w1" …"""
    end_step: int | None = None
    """The step at which it had passed; None while it lasts."""
    metric: str | None = None
    ranks: tuple[int, ...] = ()
    """The ranks it is about; empty for the whole run."""
    nodes: tuple[str, ...] = ()
    score: float = 0.0
    """How far over its threshold, in the detector's own units (deviations, ratio); for ordering only."""
    cost_seconds: float | None = None
    """Wall time lost so far, over the whole run; None where it has no meaning."""
    attempt: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)
    """The numbers behind the sentence, JSON values only (non-finite ones as strings).

    `evidence["window"]` = [first step, last step] is what a plot draws.
    """

    @property
    def is_over(self) -> bool:
        return self.end_step is not None


def as_json(finding: Finding) -> dict[str, Any]:
    """As commands print it."""
    return {
        "kind": finding.kind,
        "severity": finding.severity.word,
        "scope": finding.scope,
        "step": finding.detected_step,
        "ranks": list(finding.ranks),
        "summary": finding.summary,
        "evidence": finding.evidence,
    }
