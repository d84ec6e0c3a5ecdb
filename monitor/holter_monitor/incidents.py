"""The state machine from findings to incidents. Pure: no clock, no store; the time is an argument."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from holter_monitor.findings import Severity


@dataclass(slots=True, kw_only=True)
class Incident:
    """One trouble of one run, from the first finding to its resolution."""

    id: str
    """Stable across restarts: derived from `(run, kind, scope, onset_step)`."""
    run: str
    project: str
    kind: str
    scope: str
    severity: Severity
    state: str
    """"open", "acknowledged" or "resolved"."""
    onset_step: int
    detected_step: int
    summary: str
    created: float
    """Unix seconds, the collector's clock."""
    updated: float
    end_step: int | None = None
    metric: str | None = None
    ranks: list[int] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    attempt: str = ""
    cost_seconds: float | None = None
    causes: list[dict[str, Any]] = field(default_factory=list)
    """Ranked, best first: `{"cause", "confidence", "sentence", "evidence": [...], "against": [...], "action"}`."""
    evidence: dict[str, Any] = field(default_factory=dict)
