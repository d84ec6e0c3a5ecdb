"""A run as the parts behind the store know it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training effort. Its attempts (a restart is a new one) come and go; detectors, incidents and routes speak of the run."""

    id: str
    project: str
    name: str
    world_size: int = 1
    reference: str | None = None
    """The run (name or id, same project) that this one is measured against."""
    config: dict[str, Any] = field(default_factory=dict)
