"""Silences: what a person hides, why, and until when. What is hidden stays visible on the page; only nobody is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from holter_monitor.incidents import Incident

MATCHERS = ("project", "run", "kind", "severity", "node", "scope", "incident")


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """One silence: all matchers must match, by shell pattern; a matcher of node by any of the incident's nodes."""

    id: str
    matchers: Mapping[str, str] = field(default_factory=dict)
    author: str
    reason: str
    starts: float
    """Unix seconds."""
    ends: float

    def __post_init__(self) -> None:
        unknown = sorted(set(self.matchers) - set(MATCHERS))
        if unknown:
            raise ValueError(f"matchers: {unknown[0]!r} cannot be matched; use any of {', '.join(MATCHERS)}")
        if not self.matchers:
            raise ValueError('matchers: none given, which would hide everything; name at least one, like {"project": "smol"}')
        if self.ends <= self.starts:
            raise ValueError("ends_at: must lie after starts_at")
        if not self.reason.strip():
            raise ValueError("reason: is empty; say why, for whoever finds the silence at night")

    def is_active(self, now: float) -> bool:
        return self.starts <= now < self.ends

    def hides(self, incident: Incident, run_name: str) -> bool:
        """Whether the incident, of the run of this name, is one that the silence is about (whenever)."""
        values = {
            "project": [incident.project],
            "run": [incident.run, run_name],
            "kind": [incident.kind],
            "severity": [incident.severity.word],
            "node": incident.nodes,
            "scope": incident.scopes,
            "incident": [incident.id],
        }
        return all(any(fnmatchcase(value, pattern) for value in values[name]) for name, pattern in self.matchers.items())


def hiding(silences: Iterable[Silence], incident: Incident, run_name: str, now: float) -> Silence | None:
    """The active silence that hides the incident and lasts longest."""
    active = [silence for silence in silences if silence.is_active(now) and silence.hides(incident, run_name)]
    return max(active, key=lambda silence: silence.ends, default=None)
