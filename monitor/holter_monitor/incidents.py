"""The state machine from findings to incidents. Pure: no clock, no store; the time is an argument.

A finding's identity is `(run, kind, scope, onset_step)`. An incident is one trouble of one run: the findings of one kind that began
together (384 ranks are one incident) or came back in the same place soon after (its episodes). Its id is the identity of its first finding.

    pending ──held long enough──▶ open ──acknowledge──▶ acknowledged
                                   │ ▲                       │
      came and went 4 × in 10 min  ▼ │ back within 10 min    ▼
                               flapping ──15 min quiet──▶ resolved (after `keep_open_seconds` without a finding that lasts)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

from holter_monitor import folding
from holter_monitor.findings import Finding, Severity

ACTIVE = ("pending", "open", "acknowledged", "flapping")
"""The states of an incident that is not over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long things must last before they count; seconds."""

    hold_seconds: float = 0.0
    """A finding must last so long before anybody hears of it; 0 = at once."""
    keep_open_seconds: float = 60.0
    """An incident resolves so long after its last finding has passed: one that comes back meanwhile is the same incident."""
    rejoin_seconds: float = 600.0
    """A finding of the same kind and scope that starts within this time after the resolution reopens the incident."""
    together_seconds: float = 30.0
    """Findings of one kind and different scopes (ranks, nodes, tensors) that are first said within this time are one incident."""
    together_steps: int = 16
    """… and so are those whose onsets are no further apart than this."""
    flap_changes: int = 4
    """So many comings and goings within `flap_window_seconds` are flapping."""
    flap_window_seconds: float = 600.0
    flap_quiet_seconds: float = 900.0
    """Flapping is over when nothing came or went for so long."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened to an incident: a line of its history."""

    word: str
    """opened, worsened, updated, reopened, flapping, steadied, acknowledged, noted, reminded, resolved, silenced, unsilenced, explained,
    unexplained, advised, diagnosed"""
    actor: str | None = None
    note: str | None = None


@dataclass(slots=True, kw_only=True)
class Incident:
    """One trouble of one run, from the first finding to its resolution."""

    id: str
    """Stable across restarts: derived from the first finding's `(run, kind, scope, onset_step)`."""
    run: str
    project: str
    kind: str
    scope: str
    severity: Severity
    """The worst that any of its findings said; it never falls."""
    state: str
    """"pending", "open", "acknowledged", "flapping" or "resolved"."""
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
    episode: int = 1
    """Counts how often it came (back)."""
    parent: str | None = None
    """The incident that this one is a symptom of."""
    conversation: str | None = None
    """The incident under whose name receivers know this one (their thread, their page): a symptom that was told before its cause. None: its own."""
    silence: str | None = None
    """The silence or maintenance window that hides it, by id or name."""
    over_since: float | None = None
    """When the last finding that lasted had passed; None while one lasts."""
    comings: list[float] = field(default_factory=list)
    """When findings came and went, within the flapping window."""
    revision: int = 0
    """Grows with every change that somebody is told of; part of a notice's key."""
    opened: float | None = None
    """When this episode was opened: reminders and escalation count from here."""
    reminded: float | None = None
    """When somebody was last told that it still lasts."""
    escalations: int = 0
    """How many steps of escalation were taken in this episode."""
    acknowledged_by: str | None = None
    acknowledged: float | None = None
    resolved: float | None = None
    resolved_by: str | None = None
    findings: dict[str, Finding] = field(default_factory=dict)
    """The newest word of each finding, by identity."""

    @property
    def told_as(self) -> str:
        """What receivers know it by."""
        return self.conversation or self.id

    @property
    def episode_onset(self) -> int:
        """Where the worst of what lasts began (of what came last, if nothing does): an earlier episode, or a hint that came before, lies further back."""
        lasting = [finding for finding in self.findings.values() if not finding.is_over]
        worst = max((finding.severity for finding in lasting), default=None)
        if worst is not None:
            return min(finding.onset_step for finding in lasting if finding.severity == worst)
        return max((finding.onset_step for finding in self.findings.values()), default=self.onset_step)

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE

    @property
    def is_lasting(self) -> bool:
        return any(not finding.is_over for finding in self.findings.values())

    @property
    def scopes(self) -> list[str]:
        return list(dict.fromkeys(finding.scope for finding in self.findings.values()))


def identity(run: str, finding: Finding) -> str:
    """The finding's identity, 20 hex digits: the same records give the same identity after a restart."""
    words = f"{run}|{finding.kind}|{finding.scope}|{finding.onset_step}"
    return hashlib.sha256(words.encode()).hexdigest()[:20]


def is_news(known: Finding, said: Finding) -> bool:
    """Whether `said` tells more than `known` of the same finding. A replay says again what was said before; that must change nothing."""
    if said == known:
        return False
    if known.end_step is not None and not said.is_over:
        # The same stall can be seen once, be over, and turn out to be the first of many: what was detected after the end is no replay.
        return said.detected_step > max(known.detected_step, known.end_step)
    if said.end_step is not None and not known.is_over:
        return max(said.detected_step, said.end_step) >= known.detected_step
    return _progress(said) >= _progress(known)


def _progress(finding: Finding) -> tuple[bool, int, int, float, int]:
    # An end is final and a severity never falls, so a replayed earlier word always compares as less.
    return (finding.is_over, int(finding.severity), finding.detected_step, finding.cost_seconds or 0.0, len(finding.ranks))


def belongs(incident: Incident, finding: Finding, now: float, timing: Timing) -> bool:
    """Whether a finding not seen before is part of this incident of the same run."""
    if incident.kind != finding.kind:
        return False
    if not incident.is_active:
        return finding.scope in incident.scopes and now - (incident.resolved or 0.0) <= timing.rejoin_seconds
    if finding.scope in incident.scopes:
        return True
    began_together = abs(finding.onset_step - incident.onset_step) <= timing.together_steps
    return began_together or now - incident.created <= timing.together_seconds


def opened(run: str, project: str, finding: Finding, now: float, timing: Timing) -> tuple[Incident, list[Change]]:
    """The incident that this finding opens."""
    incident = Incident(
        id=identity(run, finding),
        run=run,
        project=project,
        kind=finding.kind,
        scope=finding.scope,
        severity=finding.severity,
        state="pending" if timing.hold_seconds else "open",
        opened=None if timing.hold_seconds else now,
        onset_step=finding.onset_step,
        detected_step=finding.detected_step,
        summary=finding.summary,
        created=now,
        updated=now,
        metric=finding.metric,
        attempt=finding.attempt,
        findings={identity(run, finding): finding},
        comings=[now],
    )
    _gather(incident)
    if finding.is_over:
        incident.over_since = now
        incident.comings.append(now)
    return incident, [] if incident.state == "pending" else [Change("opened")]


def heard(incident: Incident, finding: Finding, now: float, timing: Timing) -> list[Change]:
    """Take one more finding, or one more word of a finding that is already part of it. Nothing new: no change."""
    key = identity(incident.run, finding)
    known = incident.findings.get(key)
    if known is not None and not is_news(known, finding):
        return []
    was_lasting, was_severity = incident.is_lasting, incident.severity
    incident.findings[key] = finding if known is None else replace(finding, severity=max(finding.severity, known.severity))
    incident.updated = now
    _gather(incident)
    changes: list[Change] = []
    if known is None and not (was_lasting and incident.is_active):
        changes += _came_back(incident, now, timing)
    if (was_lasting and not incident.is_lasting) or (known is None and not was_lasting and finding.is_over):
        incident.over_since = now
        changes += _came_or_went(incident, now, timing)
    if incident.severity > was_severity and incident.is_active:
        changes.append(Change("worsened", note=f"{was_severity.word} to {incident.severity.word}"))
    return changes or [Change("updated")]


def _came_back(incident: Incident, now: float, timing: Timing) -> list[Change]:
    incident.over_since = None
    incident.episode += 1
    if incident.is_active:
        return _came_or_went(incident, now, timing)
    incident.state, incident.resolved, incident.resolved_by, incident.opened = "open", None, None, now
    incident.acknowledged, incident.acknowledged_by, incident.reminded, incident.escalations = None, None, None, 0
    return _came_or_went(incident, now, timing) or [Change("reopened")]


def _came_or_went(incident: Incident, now: float, timing: Timing) -> list[Change]:
    lately = [at for at in incident.comings if now - at <= timing.flap_window_seconds]
    incident.comings = [*lately[-64:], now]
    if incident.state in ("pending", "resolved", "flapping") or len(incident.comings) <= timing.flap_changes:
        return []
    incident.state = "flapping"
    return [Change("flapping", note=f"came and went {len(incident.comings)} times")]


def advanced(incident: Incident, now: float, timing: Timing) -> list[Change]:
    """What the mere passing of time changes."""
    if not incident.is_active:
        return []
    over_for = -1.0 if incident.over_since is None else now - incident.over_since
    if incident.state == "pending" and now - incident.created >= timing.hold_seconds:
        incident.state, incident.opened = "open", now
        return [Change("opened")]
    if incident.state == "flapping":
        if not incident.comings or now - incident.comings[-1] < timing.flap_quiet_seconds:
            return []
        if incident.over_since is None:
            incident.state = "open"
            return [Change("steadied")]
        return _resolved(incident, now, None)
    return _resolved(incident, now, None) if over_for >= timing.keep_open_seconds else []


def due(incident: Incident, timing: Timing) -> float | None:
    """When `advanced` will have something to say, if no finding comes before; None = never."""
    if not incident.is_active:
        return None
    if incident.state == "flapping":
        return (incident.comings[-1] if incident.comings else incident.updated) + timing.flap_quiet_seconds
    times = [] if incident.over_since is None else [incident.over_since + timing.keep_open_seconds]
    if incident.state == "pending":
        times.append(incident.created + timing.hold_seconds)
    return min(times, default=None)


def acknowledged(incident: Incident, actor: str, now: float) -> list[Change]:
    """A person has seen it: no more reminders or escalation. Acknowledging twice changes nothing."""
    if not incident.is_active or incident.acknowledged_by is not None:
        return []
    incident.state = "acknowledged" if incident.state != "flapping" else "flapping"
    incident.acknowledged, incident.acknowledged_by, incident.updated = now, actor, now
    return [Change("acknowledged", actor)]


def resolved(incident: Incident, actor: str, now: float) -> list[Change]:
    """A person says that it is over. Further words of the same findings do not open it again; a new finding does."""
    return _resolved(incident, now, actor) if incident.is_active else []


def _resolved(incident: Incident, now: float, actor: str | None) -> list[Change]:
    was_pending = incident.state == "pending"
    incident.state, incident.resolved, incident.resolved_by, incident.updated = "resolved", now, actor, now
    return [Change("resolved", actor, "before anybody was told" if was_pending else None)]


def _gather(incident: Incident) -> None:
    """Fold the findings into what the incident says as a whole. Old findings that are over may be missing here; what they added stays."""
    whole = folding.fold(list(incident.findings.values()))
    incident.severity = max(incident.severity, whole.severity)
    incident.onset_step = min(incident.onset_step, whole.onset_step)
    incident.end_step = None if whole.end_step is None else max(incident.end_step or 0, whole.end_step)
    incident.ranks = sorted({*incident.ranks, *whole.ranks})
    incident.nodes = sorted({*incident.nodes, *whole.nodes})
    incident.cost_seconds = max((cost for cost in (incident.cost_seconds, whole.cost_seconds) if cost is not None), default=None)
    incident.evidence = whole.evidence
    incident.summary = whole.summary if len(incident.scopes) == 1 else folding.headline(incident.ranks, incident.nodes, whole)
