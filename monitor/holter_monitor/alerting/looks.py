"""When the cause of an incident is looked for once more: signals arrive later than the trouble. Pure."""

from __future__ import annotations

from holter_monitor.incidents import Incident

AFTER_SECONDS = (10.0, 30.0, 90.0, 240.0)
"""After the opening."""
_LATE_SECONDS = 60.0
"""So much later than the last of them a look still tells something."""


def next_look(incident: Incident, now: float) -> float | None:
    """When; None = not any more."""
    opened = _opened(incident)
    return None if opened is None else next((opened + after for after in AFTER_SECONDS if opened + after > now), None)


def is_fresh(incident: Incident, now: float) -> bool:
    """Whether evidence for its cause may still come in."""
    opened = _opened(incident)
    return opened is not None and now - opened <= AFTER_SECONDS[-1] + _LATE_SECONDS


def _opened(incident: Incident) -> float | None:
    return incident.opened if incident.state in ("open", "acknowledged") else None
