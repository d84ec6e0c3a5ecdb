"""How fast the frames go that gathered while the collector was away: every agent of the fleet has as many, and all come back to it at once."""

from __future__ import annotations

import math

OUTAGE_SECONDS = 5.0
"""A shorter one gathers so few frames that they may go at once."""
TIMES = 1.75
"""The rate at which they gathered times this: with what is new meanwhile, the collector meets less than twice its usual load."""
LONGEST_GAP = 1.0
LONGEST_HELD = 300.0
DOUBLING_SECONDS = 30.0


class CatchUp:
    """Asked after each frame for the pause before the next. None without an outage.

    The pace is held for twice the outage, in which all of a short one arrives, and at most five minutes; then it doubles every half minute, or
    what gathered in a night would take until the next. A collector for which that is too much says so, and the back-off waits.
    """

    def __init__(self) -> None:
        self._away_since: float | None = None
        self._gap = 0.0
        self._held_until = 0.0

    def failed(self, now: float) -> None:
        if self._away_since is None:
            self._away_since = now

    def arrived(self, now: float, waiting: int) -> float:
        """A frame has arrived and `waiting` others wait: seconds until the next may go."""
        away = 0.0 if self._away_since is None else now - self._away_since
        self._away_since = None
        if not waiting:
            self._gap = 0.0
        elif away >= OUTAGE_SECONDS:
            # Once more away while catching up: what waits is of both outages, and tells no pace.
            self._gap = self._gap or min(away / waiting, LONGEST_GAP) / TIMES
            self._held_until = now + min(2 * away, LONGEST_HELD)
        return self._gap * math.pow(0.5, max(now - self._held_until, 0.0) / DOUBLING_SECONDS)
