"""A scan as JSON: the contract of `holter scan --json` (DESIGN.md, section 4)."""

from __future__ import annotations

from math import isfinite, isnan
from typing import Any

from holter_monitor.offline.episodes import Trouble
from holter_monitor.offline.scan import Scanned


def incidents(runs: list[Scanned]) -> list[dict[str, Any]]:
    """One object an incident, in the order of sources and detection."""
    return [incident(trouble) for run in runs for trouble in run.troubles]


def incident(trouble: Trouble) -> dict[str, Any]:
    evidence = dict(trouble.incident.evidence)
    if len(trouble.ranks) > 1:
        evidence.setdefault("ranks", trouble.ranks)
    if trouble.causes:
        evidence["causes"] = trouble.causes
    if trouble.cause is not None:
        evidence["symptom_of"] = {"kind": trouble.cause.kind, "onset_step": trouble.cause.onset_step}
    return {
        "source": trouble.source,
        "kind": trouble.kind,
        "severity": trouble.severity.word,
        "onset_step": trouble.onset_step,
        "end_step": trouble.end_step,
        "detected_step": trouble.detected_step,
        "metric": trouble.metric,
        "rank": trouble.ranks[0] if trouble.ranks else None,
        "summary": trouble.summary,
        "cost": trouble.cost_seconds if trouble.cost_seconds is None or isfinite(trouble.cost_seconds) else None,
        "evidence": spelled(evidence),
    }


def spelled(value: Any) -> Any:
    """The value with non-finite numbers as the words that JSON has none for."""
    if isinstance(value, float) and not isfinite(value):
        return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {str(key): spelled(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [spelled(each) for each in value]
    return value
