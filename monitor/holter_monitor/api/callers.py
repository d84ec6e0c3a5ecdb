"""Who is asking: a token's name and what it may do."""

from __future__ import annotations

from dataclasses import dataclass

from holter_monitor.tokens import SCOPES


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking: a token's name, what it may do, and in which project ("*": all)."""

    name: str
    scopes: frozenset[str]
    project: str = "*"
    token: str = ""
    """The token's id; nobody's is empty."""

    def may(self, scope: str, project: str | None = None) -> bool:
        return scope in self.scopes and (project is None or self.project in ("*", project))

    @property
    def is_anonymous(self) -> bool:
        return self is ANYBODY

    @property
    def projects(self) -> list[str] | None:
        return None if self.project == "*" else [self.project]


ANYBODY = Caller("anonymous", frozenset(SCOPES))
"""On loopback, as long as no token was made."""
