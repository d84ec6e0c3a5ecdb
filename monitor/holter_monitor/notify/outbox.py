"""The outbox's workers: claim, send, mark. At least once, in order per incident and receiver, one worker for each receiver.

A worker that is killed between `send` and `mark` leaves a lease behind; when it ends, the same notice goes out again under the same key.
Marking before sending would lose it instead, and a page that never comes is worse than one that comes twice.
"""

from __future__ import annotations

import hashlib
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Protocol

import httpx
from pydantic import SecretStr

from holter_monitor.notify.errors import DeliveryFailed, DeliveryRefused
from holter_monitor.notify.limits import GIVE_UP, TokenBucket, delay
from holter_monitor.notify.notice import Notice, digest
from holter_monitor.notify.notifier import Notifier

logger = logging.getLogger(__name__)

LEASE_SECONDS = 30.0
"""Longer than any request can take, so that a lease ends only when its worker is gone."""
_DIGEST_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Delivery:
    """One claimed row of the outbox."""

    id: int
    notice: Notice
    attempts: int
    """With this one."""
    created: float


class Outbox(Protocol):
    """Where notices wait. Every call is one short transaction; the times are arguments (unix seconds)."""

    def claim(self, receiver: str, limit: int, now: float) -> list[Delivery]:
        """Lease at most `limit` due notices, most urgent first; none whose predecessor (same incident and receiver) is under way."""
        ...

    def count_due(self, receiver: str, now: float) -> int: ...

    def next_at(self, receiver: str) -> float | None:
        """When the next notice is due (or the next lease ends); None when none waits."""
        ...

    def sent(self, deliveries: Sequence[Delivery], provider_id: str | None, now: float) -> None: ...

    def failed(self, deliveries: Sequence[Delivery], error: str, next_at: float, now: float) -> None:
        """Back to the queue. Notices that have waited too long also go to the fallback receiver."""
        ...

    def refused(self, deliveries: Sequence[Delivery], error: str, now: float) -> None:
        """Dead, visibly; the notices go to the fallback receiver instead."""
        ...


@dataclass
class Counts:
    """What a worker did, for `/metrics`."""

    sent: int = 0
    failed: int = 0
    refused: int = 0
    last_sent: float = 0.0


@dataclass(kw_only=True)
class Worker:
    """One receiver's worker, in a thread of its own: a receiver that hangs delays nobody else."""

    receiver: str
    notifier: Notifier
    outbox: Outbox
    http: httpx.Client
    link: str = ""
    picture: Callable[[str], bytes | None] | None = None
    """Draws the evidence of an incident, for receivers that show images."""
    clock: Callable[[], float] = time.time
    counts: Counts = field(default_factory=Counts)
    bucket: TokenBucket = field(init=False)
    failures: int = 0
    """In a row."""
    rests_until: float = 0.0
    """The receiver asked for it (`Retry-After`), cannot be reached, or has just had a digest."""

    def __post_init__(self) -> None:
        self.bucket = TokenBucket(self.notifier.limits, filled=self.clock())

    def step(self) -> float:
        """Deliver what may go now, at most one message. Seconds until the next step is worth while."""
        now = self.clock()
        wait = max(self.rests_until - now, self.bucket.wait(now))
        if wait > 0:
            return wait
        deliveries = self.outbox.claim(self.receiver, self._batch(now), now)
        if not deliveries:
            due = self.outbox.next_at(self.receiver)
            return 60.0 if due is None else max(0.05, due - now)
        self.bucket.take()
        self._deliver(deliveries)
        return 0.0

    def _batch(self, now: float) -> int:
        digest_from = self.notifier.limits.digest_from
        if digest_from is None or self.outbox.count_due(self.receiver, now) < digest_from:
            return 1
        return _DIGEST_LIMIT

    def _deliver(self, deliveries: list[Delivery]) -> None:
        try:
            provider_id = self.notifier.send(self._message(deliveries), self.http)
        except DeliveryRefused as error:
            self.counts.refused += 1
            logger.error("receiver %s refused %s: %s", self.receiver, deliveries[0].notice.key, self._redacted(error))
            self.outbox.refused(deliveries, self._redacted(error), self.clock())
        except DeliveryFailed as error:
            self._failed(deliveries, error, error.retry_after)
        except Exception as error:  # noqa: BLE001 - a notifier's own mistake must neither lose the notice nor stop the worker
            self._failed(deliveries, error, None)
        else:
            self.failures = 0
            self.counts.sent += 1
            self.counts.last_sent = self.clock()
            if len(deliveries) > 1:
                self.rests_until = self.clock() + self.notifier.limits.digest_pause
            self.outbox.sent(deliveries, provider_id, self.clock())

    def _message(self, deliveries: list[Delivery]) -> Notice:
        if len(deliveries) == 1:
            notice = deliveries[0].notice
            wanted = self.picture is not None and self.notifier.limits.shows_images and notice.thread is None
            return replace(notice, image=self._drawn(notice)) if wanted else notice
        keys = "\n".join(delivery.notice.key for delivery in deliveries)
        key = f"digest-{hashlib.sha256(keys.encode()).hexdigest()[:20]}"
        return digest([delivery.notice for delivery in deliveries], key, self.link)

    def _drawn(self, notice: Notice) -> bytes | None:
        try:
            return None if self.picture is None else self.picture(notice.incident)
        except Exception as error:  # noqa: BLE001 - a plot that cannot be drawn must not hold back the alert
            logger.warning("no plot for the message about %s: %s", notice.incident, error)
            return None

    def _failed(self, deliveries: list[Delivery], error: Exception, retry_after: float | None) -> None:
        now = self.clock()
        self.failures += 1
        self.counts.failed += 1
        reason = self._redacted(error) if isinstance(error, DeliveryFailed) else f"{type(error).__name__}: {self._redacted(error)}"
        logger.warning("receiver %s failed (try %d): %s", self.receiver, deliveries[0].attempts, reason)
        if now - min(delivery.created for delivery in deliveries) > GIVE_UP:
            self.outbox.refused(deliveries, f"given up after {GIVE_UP / 3600:.0f} h: {reason}", now)
            return
        wait = delay(max(delivery.attempts for delivery in deliveries)) * random.uniform(0.95, 1.05)  # noqa: S311
        wait = wait if retry_after is None else retry_after
        # Ask less of a receiver that is down: one try at a time, not one for each notice that waits.
        self.rests_until = now + (min(wait, delay(self.failures)) if retry_after is None else retry_after)
        self.outbox.failed(deliveries, reason, now + wait, now)

    def _redacted(self, error: Exception) -> str:
        words = str(error)
        for secret in secrets_of(self.notifier):
            words = words.replace(secret, "***")
        return words[:500]


def secrets_of(notifier: Notifier) -> list[str]:
    """The secret values of a notifier's own configuration, which no log or error may show; parts of a secret URL count as well."""
    found: list[str] = []
    for each in fields(notifier):  # type: ignore[arg-type]
        value = getattr(notifier, each.name)
        if isinstance(value, SecretStr) and value.get_secret_value():
            secret = value.get_secret_value()
            found += [secret, *(part for part in secret.split("/") if len(part) > 8 and "." not in part)]
    return sorted(found, key=len, reverse=True)


class Deliveries:
    """All workers of one collector: started together, woken together, stopped together, exchanged when the policy changes."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._posts = {worker.receiver: _Post(worker) for worker in workers}
        self._started = False

    @property
    def workers(self) -> list[Worker]:
        return [post.worker for post in self._posts.values()]

    @property
    def errors(self) -> int:
        """How often a worker could not reach the outbox."""
        return sum(post.errors for post in self._posts.values())

    def start(self) -> None:
        self._started = True
        for post in self._posts.values():
            post.start()

    def wake(self) -> None:
        """New notices were committed."""
        for post in list(self._posts.values()):
            post.woken.set()

    def exchange(self, workers: Sequence[Worker]) -> None:
        """Go on with these. A receiver that is the same as before keeps its worker, and with it its limits and its rest."""
        old, kept = self._posts, {}
        for worker in workers:
            same = old.get(worker.receiver)
            if same is not None and same.worker.notifier == worker.notifier:
                same.worker.http, same.worker.link = worker.http, worker.link
                kept[worker.receiver] = same
            else:
                kept[worker.receiver] = _Post(worker)
        self._posts = kept
        for post in [post for post in old.values() if post not in kept.values()]:
            post.stop()
        for post in [post for post in kept.values() if self._started and post not in old.values()]:
            post.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Finish the messages under way. What waits stays in the outbox for the next start."""
        posts, ends = list(self._posts.values()), time.monotonic() + timeout
        for post in posts:
            post.stop()
        for post in posts:
            post.join(max(0.0, ends - time.monotonic()))


class _Post:
    """One worker's thread."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.woken, self._stop = threading.Event(), threading.Event()
        self.errors = 0
        self._thread = threading.Thread(target=self._work, name=f"notify-{worker.receiver}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self.woken.set()

    def join(self, timeout: float) -> None:
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _work(self) -> None:
        while not self._stop.is_set():
            self.woken.clear()
            try:
                wait = self.worker.step()
            except Exception:  # the store is away for a moment: the outbox's loop goes on, and says so
                self.errors += 1
                logger.exception("worker of receiver %s", self.worker.receiver)
                wait = 1.0
            if wait > 0:
                # Another process may queue notices without waking us (a second collector): look once a second.
                self.woken.wait(min(wait, 1.0))
