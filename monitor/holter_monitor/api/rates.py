"""How often one token may ask: a bucket that leaks, kept as one number a token (the moment at which it would be empty)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from holter_monitor.api.callers import Caller
from holter_monitor.errors import Problem
from holter_monitor.settings import Limits

logger = logging.getLogger(__name__)
BURST_SECONDS = 4.0
"""What a token may ask at once after a pause, in seconds of its rate."""
TOLD_SECONDS = 60.0
TOKENS = 10_000


@dataclass(slots=True)
class _Bucket:
    empty_at: float = 0.0
    told_at: float = float("-inf")


@dataclass
class Rate:
    """`per_second` requests of each token; 0 is no limit."""

    per_second: float
    buckets: dict[str, _Bucket] = field(default_factory=dict)

    def take(self, token: str, now: float) -> float:
        """0 if the request may pass, else after how many seconds it may. What is refused does not count."""
        bucket = self.buckets.get(token)
        if bucket is None:
            if len(self.buckets) >= TOKENS:
                self.buckets = {token: bucket for token, bucket in self.buckets.items() if bucket.empty_at > now}
            bucket = self.buckets[token] = _Bucket()
        gap = 1.0 / self.per_second
        wait = max(bucket.empty_at - now, 0.0) + gap - max(gap, BURST_SECONDS)  # in this order: an empty bucket waits for no rounding
        if wait > 0:
            return wait
        bucket.empty_at = max(bucket.empty_at, now) + gap
        return 0.0


class Rates:
    """Writes have a rate of their own: two thousand agents share a token and send once a second, no reader does."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._writes, self._requests = Rate(limits.writes_per_second), Rate(limits.requests_per_second)

    def admit(self, caller: Caller, scope: str) -> None:
        """Raises `Problem` 429 with the time to wait. Who needs no token (on loopback) has no limit either."""
        rate, setting = (self._writes, "--writes-per-second") if scope == "write" else (self._requests, "--requests-per-second")
        if not rate.per_second or not caller.token:
            return
        now = self._clock()
        wait = rate.take(caller.token, now)
        if not wait:
            return
        bucket = rate.buckets[caller.token]
        if now - bucket.told_at >= TOLD_SECONDS:
            bucket.told_at = now
            logger.warning("the token %r asks more than %g times a second (%s) and hears 429", caller.name, rate.per_second, setting)
        raise Problem(
            429,
            "Too many requests with this token",
            field="Authorization",
            value=caller.name,
            remedy=f"at most {rate.per_second:g} a second ({setting}); come back after Retry-After",
            retry_after=wait,
        )
