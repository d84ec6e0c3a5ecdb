"""How much a receiver may be sent, and when a failed delivery is tried again."""

from __future__ import annotations

from dataclasses import dataclass, field

SCHEDULE = (5.0, 15.0, 30.0, 60.0, 120.0)
"""Seconds before the 2nd, 3rd … try; after that every `STEADY` seconds."""
STEADY = 300.0
GIVE_UP = 24 * 3600.0
"""A notice that could not be delivered for so long is dead."""
FALLBACK_AFTER = 300.0
"""A notice that could not be delivered for so long also goes to the fallback receiver."""


def delay(failures: int) -> float:
    """Seconds to wait after so many failures in a row (1 = the first)."""
    return SCHEDULE[failures - 1] if failures <= len(SCHEDULE) else STEADY


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a receiver puts up with."""

    per_second: float = 10.0
    """The long-term rate of requests."""
    burst: int = 10
    """So many may come at once."""
    digest_from: int | None = None
    """So many due notices become one message; None = each notice is a message of its own (receivers that are programs)."""
    shows_images: bool = False
    """Whether a plot of the evidence is worth drawing for it."""
    digest_pause: float = 10.0
    """After a digest the receiver is left alone for so long: what comes meanwhile is one message, not many."""


@dataclass(slots=True)
class TokenBucket:
    """Lets `burst` through at once, then `per_second`. Told the time, so it can be tested without waiting."""

    limits: Limits
    tokens: float = field(init=False)
    filled: float = 0.0

    def __post_init__(self) -> None:
        self.tokens = float(self.limits.burst)

    def wait(self, now: float) -> float:
        """Seconds until the next request may go; 0 = it may go now (and is then counted by `take`)."""
        self.tokens = min(float(self.limits.burst), self.tokens + max(0.0, now - self.filled) * self.limits.per_second)
        self.filled = now
        return 0.0 if self.tokens >= 1.0 else (1.0 - self.tokens) / self.limits.per_second

    def take(self) -> None:
        self.tokens -= 1.0
