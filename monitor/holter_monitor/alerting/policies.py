"""What is told to whom, and when: the policy that `alerts/policies/*.yml` says. Pure; files are read in `policy_files`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, time
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from holter_monitor.findings import KINDS, Severity
from holter_monitor.incidents import Incident, Timing

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ADVICE = ("checkpoint_now", "stop", "skip_batches", "rewind_to")
"""What a run can be advised to do, where the policy allows it."""


def seconds(value: object) -> float:
    """ "10s", "5m", "1h30m" or a bare number of seconds."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(ms|[smhd])", str(value))
    if not parts or re.sub(r"(\d+(?:\.\d+)?)\s*(ms|[smhd])", "", str(value)).strip():
        raise ValueError(f"{value!r} is not a duration; write it like 30s, 5m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _severity(value: object) -> Severity:
    try:
        return value if isinstance(value, Severity) else Severity[str(value).upper()]
    except KeyError:
        raise ValueError(f"{value!r} is not a severity; it is one of info, warning, critical") from None


Seconds = Annotated[float, BeforeValidator(seconds), Field(ge=0)]
SeverityWord = Annotated[Severity, BeforeValidator(_severity)]


class Part(BaseModel):
    """A part of a policy. An unknown word is an error, not a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Match(Part):
    """Which incidents: every word that is given must match. Shell patterns (`smol-*`, `loss_*`); a list means any of them."""

    project: list[str] = Field(default_factory=lambda: ["*"])
    run: list[str] = Field(default_factory=lambda: ["*"])
    """Its name or its id."""
    kind: list[str] = Field(default_factory=lambda: ["*"])
    """What was found."""
    severity: list[SeverityWord] = Field(default_factory=lambda: list(Severity))
    node: list[str] = Field(default_factory=list)
    """One of the nodes that it concerns."""

    @field_validator("project", "run", "kind", "severity", "node", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return value if isinstance(value, list) else [value]

    @field_validator("kind")
    @classmethod
    def _known(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            if not any(fnmatchcase(kind, pattern) for kind in KINDS):
                raise ValueError(f"no finding is called {pattern!r}; the kinds are {', '.join(KINDS)}")
        return patterns

    def matches(self, incident: Incident, run_name: str) -> bool:
        """Whether the incident, of the run of this name, is meant."""
        return (
            _any(incident.project, self.project)
            and (_any(run_name, self.run) or _any(incident.run, self.run))
            and _any(incident.kind, self.kind)
            and incident.severity in self.severity
            and (not self.node or any(_any(node, self.node) for node in incident.nodes))
        )


def _any(value: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns)


class Hours(Part):
    """A time of day on some days of the week, in a zone; `from` later than `to` runs over midnight."""

    start: time = Field(alias="from")
    end: time = Field(alias="to")
    days: list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]] = Field(default_factory=lambda: list(_DAYS))  # type: ignore[arg-type]
    zone: str = "UTC"
    """Like Europe/Berlin."""

    @field_validator("start", "end", mode="before")
    @classmethod
    def _clock(cls, value: object) -> object:
        if isinstance(value, int) and not isinstance(value, bool):  # YAML 1.1 reads 22:30 as 22 * 60 + 30
            return time(value // 60 % 24, value % 60)
        return value

    @field_validator("zone")
    @classmethod
    def _zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"{name!r} is not a time zone; write one like Europe/Berlin") from None
        return name

    def left(self, now: float) -> float:
        """Seconds until these hours end; 0 outside of them."""
        local = datetime.fromtimestamp(now, ZoneInfo(self.zone))
        clock, day = local.time(), local.weekday()
        if self.start <= self.end:
            inside = self.start <= clock < self.end and _DAYS[day] in self.days
        else:
            inside = (clock >= self.start and _DAYS[day] in self.days) or (clock < self.end and _DAYS[day - 1] in self.days)
        if not inside:
            return 0.0
        passed = local.hour * 3600 + local.minute * 60 + local.second + local.microsecond / 1e6
        return (self.end.hour * 3600 + self.end.minute * 60 + self.end.second - passed) % 86400


class Escalation(Part):
    """Whom else to tell when nobody has acknowledged in time."""

    after: Seconds
    """After the first message."""
    receivers: list[str] = Field(min_length=1)


class Route(Part):
    """Which incidents go to which receivers. Routes are tried in order; the first that matches wins unless it says `continue: true`."""

    match: Match = Field(default_factory=Match)
    receivers: list[str] = Field(default_factory=list)
    group_wait: Seconds = 0.5
    """Time for a cause to catch up with its symptom before the first message; a critical incident waits for nobody."""
    repeat: Seconds = 4 * 3600.0
    """Say again that it lasts, unless acknowledged; 0 = never."""
    escalate: list[Escalation] = Field(default_factory=list)
    quiet_hours: Hours | None = None
    """Messages below critical wait until these hours end."""
    observe_only: bool = False
    """Recorded and shown, nobody is told: for trying a rule out."""
    proceed: bool = Field(default=False, alias="continue")
    """Whether later routes are tried too."""


class Maintenance(Part):
    """A recurring silence: what is hidden, when, by whom and why."""

    name: str
    match: Match = Field(default_factory=Match)
    hours: Hours
    author: str
    reason: str


class Reaction(Part):
    """Advice to the runs of a project. Off unless written here; a run obeys only if its user opted in too; every advice is audited."""

    match: Match
    advise: Literal["checkpoint_now", "stop", "skip_batches", "rewind_to"]
    """One word; several reactions may match."""


class Heartbeat(Part):
    """The outside watch: pinged only while the canary passes through the whole pipeline."""

    url: str
    every: Seconds = 60.0
    """How often it is asked for; the canary itself flies every half minute, or as often as this if that is more often."""


class Policy(Part):
    """The whole policy. Without a file: everything of severity warning and higher goes to every receiver that the environment names."""

    receivers: dict[str, dict[str, Any]] = Field(default_factory=lambda: {"log": {"type": "log"}})
    """By names of your own, each with its `type`."""
    routes: list[Route] = Field(default_factory=list)
    """Without one: warning and worse, to every receiver."""
    fallback: str | None = None
    """The receiver that is told when another one cannot be reached."""
    maintenance: list[Maintenance] = Field(default_factory=list)
    """Recurring silences."""
    reactions: list[Reaction] = Field(default_factory=list)
    """Advice to runs."""
    heartbeat: Heartbeat | None = None
    """The watch outside."""
    hold: Seconds = 0.0
    """A finding must last so long before anybody is told."""
    keep_open: Seconds = 60.0
    """An incident resolves so long after its last finding has passed."""
    allow_private: bool = False
    """Whether receivers may have private or loopback addresses. Addresses of cloud metadata are refused even then."""

    @model_validator(mode="after")
    def _receivers_exist(self) -> Policy:
        named = {name for route in self.routes for name in [*route.receivers, *(r for step in route.escalate for r in step.receivers)]}
        named |= {self.fallback} if self.fallback else set()
        missing = sorted(named - set(self.receivers))
        if missing:
            raise ValueError(f"no receiver is called {missing[0]!r}; defined are {', '.join(sorted(self.receivers)) or 'none'}")
        return self

    @property
    def timing(self) -> Timing:
        return Timing(hold_seconds=self.hold, keep_open_seconds=self.keep_open)

    def routes_of(self, incident: Incident, run_name: str) -> list[Route]:
        """The routes that this incident takes; several only where one says `continue`."""
        taken: list[Route] = []
        for route in self.routes or [self.default_route]:
            if route.match.matches(incident, run_name):
                taken.append(route)
                if not route.proceed:
                    break
        return taken

    @property
    def default_route(self) -> Route:
        """Where no route is written: warning and higher, to everybody."""
        return Route(match=Match(severity=[Severity.WARNING, Severity.CRITICAL]), receivers=list(self.receivers))

    def maintenance_of(self, incident: Incident, run_name: str, now: float) -> tuple[str, float] | None:
        """The maintenance window that hides the incident now, and when it ends."""
        for window in self.maintenance:
            left = window.hours.left(now)
            if left and window.match.matches(incident, run_name):
                return window.name, now + left
        return None

    def advice_for(self, incident: Incident, run_name: str) -> list[str]:
        """What the run may be advised to do about this incident."""
        return [reaction.advise for reaction in self.reactions if reaction.match.matches(incident, run_name)]


def from_environment(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Receivers that the environment names, for those who write no policy file. Always with the log line."""
    receivers: dict[str, dict[str, Any]] = {"log": {"type": "log"}}
    if url := environ.get("HOLTER_SLACK_WEBHOOK"):
        receivers["slack"] = {"type": "slack", "webhook_url": url}
    if url := environ.get("HOLTER_WEBHOOK_URL"):
        receivers["webhook"] = {"type": "webhook", "url": url, "secret": environ.get("HOLTER_WEBHOOK_SECRET", "")}
    if key := environ.get("HOLTER_PAGERDUTY_KEY"):
        receivers["pagerduty"] = {"type": "pagerduty", "routing_key": key}
    if url := environ.get("HOLTER_ALERTMANAGER_URL"):
        receivers["alertmanager"] = {"type": "alertmanager", "url": url}
    if url := environ.get("HOLTER_APPRISE_URL"):
        receivers["apprise"] = {"type": "apprise", "url": url}
    return receivers


def default_policy(environ: Mapping[str, str]) -> Policy:
    """The policy where no file is given. `HOLTER_ALLOW_PRIVATE_RECEIVERS=1` permits receivers on private or loopback addresses."""
    heartbeat = {"url": environ["HOLTER_HEARTBEAT_URL"]} if environ.get("HOLTER_HEARTBEAT_URL") else None
    allow = environ.get("HOLTER_ALLOW_PRIVATE_RECEIVERS", "") in ("1", "true", "yes")
    return Policy.model_validate({"receivers": from_environment(environ), "heartbeat": heartbeat, "allow_private": allow})
