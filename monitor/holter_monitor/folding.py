"""Many findings as one: what an incident says as a whole of the ranks, nodes and tensors that its findings are about. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from holter_monitor.findings import Finding, Severity
from holter_monitor.ranges import folded, spans

_APART_STEPS = 2
"""Onsets that lie further apart than this are told one by one."""
_NAMED = 6
"""So many places are named with their own onset; of more, the first and the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """The findings of one incident, folded."""

    severity: Severity
    onset_step: int
    end_step: int | None
    ranks: list[int]
    nodes: list[str]
    cost_seconds: float | None
    evidence: dict[str, Any]
    summary: str
    """The words of the worst of them."""
    onsets: dict[str, int]
    """Where -> the first step, in the order of the steps; of findings that name ranks or nodes."""


def fold(findings: Sequence[Finding]) -> Whole:
    """At least one finding. What lasts speaks before what is over, the worse before the milder."""
    lasting = [finding for finding in findings if not finding.is_over]
    worst = max(lasting or findings, key=lambda finding: (finding.severity, finding.detected_step, abs(finding.score)))
    onsets = _onsets(findings)
    evidence = worst.evidence | ({"onsets": dict(list(onsets.items())[:64])} if len(onsets) > 1 else {})
    return Whole(
        severity=max(finding.severity for finding in findings),
        onset_step=min(finding.onset_step for finding in findings),
        end_step=None if lasting else max(finding.end_step or 0 for finding in findings),
        ranks=sorted({rank for finding in findings for rank in finding.ranks}),
        nodes=sorted({node for finding in findings for node in finding.nodes}),
        cost_seconds=_cost(findings),
        evidence=evidence,
        summary=worst.summary,
        onsets=onsets,
    )


def headline(ranks: Sequence[int], nodes: Sequence[str], whole: Whole) -> str:
    """One line for findings in several places: all of them, since when each, and the worst in its own words."""
    where = []
    if ranks:
        where.append(f"{_plural(len(ranks), 'rank')} {spans(ranks)}")
    if nodes:
        where.append(f"{_plural(len(nodes), 'node')} {folded(nodes)}")
    return f"{', '.join(where) or 'several places'}{_since(whole.onsets)}: {whole.summary}"


def _since(onsets: dict[str, int]) -> str:
    steps = list(onsets.values())
    if len(steps) < 2 or steps[-1] - steps[0] <= _APART_STEPS:
        return ""
    told = list(onsets.items()) if len(onsets) <= _NAMED else [next(iter(onsets.items())), list(onsets.items())[-1]]
    between = ", " if len(onsets) <= _NAMED else " … "
    return f" ({between.join(f'{place} since step {step}' for place, step in told)})"


def _onsets(findings: Sequence[Finding]) -> dict[str, int]:
    found: dict[str, int] = {}
    for finding in findings:
        place = f"rank {spans(finding.ranks)}" if finding.ranks else folded(finding.nodes) if finding.nodes else ""
        if place:
            found[place] = min(finding.onset_step, found.get(place, finding.onset_step))
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _cost(findings: Sequence[Finding]) -> float | None:
    """Episodes in one scope add up; scopes side by side lose the same seconds, so the most counts."""
    scopes: dict[str, float] = {}
    for finding in findings:
        if finding.cost_seconds is not None:
            scopes[finding.scope] = scopes.get(finding.scope, 0.0) + finding.cost_seconds
    return max(scopes.values(), default=None)


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else f"{count} {noun}s"
