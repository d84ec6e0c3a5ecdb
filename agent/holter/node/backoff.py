"""How long to wait for a collector that cannot take a frame now."""

from __future__ import annotations

import email.utils
import random
import time

FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
LONGEST_RETRY_AFTER = 300.0
SPREAD = 0.25
"""Of what the collector asked for: a long wait has gathered more agents, so they come back over a longer time."""


class Backoff:
    """Full jitter, doubling; the collector's own word is kept, with the jitter on top: agents that were told the same come back spread."""

    def __init__(self) -> None:
        self.tries = 0

    def delay(self, retry_after: str = "", longest: float = LONGEST_DELAY) -> float:
        """Seconds to wait, never none. `retry_after` is seconds or a date; what is neither is ignored."""
        asked = min(max(_seconds(retry_after) or 0.0, 0.0), LONGEST_RETRY_AFTER)
        top = max(min(longest, FIRST_DELAY * 2.0**self.tries), asked * SPREAD)
        self.tries += 1
        return asked + random.uniform(FIRST_DELAY / 2, top)  # noqa: S311  jitter, no secret

    def reset(self) -> None:
        self.tries = 0


def _seconds(text: str) -> float | None:
    if not text:
        return None
    try:
        return float(int(text))
    except (ValueError, OverflowError):
        pass
    try:
        return email.utils.parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
