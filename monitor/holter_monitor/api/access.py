"""Who is asking, and may he: tokens, their scopes, failures counted by address. Decisions only; `gate.py` stands at the door."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import sqlalchemy as sa

from holter_monitor import tokens
from holter_monitor.api.aside import Aside
from holter_monitor.api.callers import ANYBODY, Caller
from holter_monitor.errors import Problem, Unavailable
from holter_monitor.store import tokens as rows
from holter_monitor.store.control import Control

FRESH_SECONDS = 3.0
"""How long a token's answer is believed: the longest that a revoked one still works."""
STALE_SECONDS = 60.0
"""How long an answer is believed while the control store is away: its restart must not turn agents and readers out."""
FAILURES, FAILURE_SECONDS = 10, 60.0
ADDRESSES = 10_000
REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class _Answer:
    caller: Caller | None
    until: float
    retry_at: float = 0.0


class Access:
    """Tokens of the control store behind a short memory."""

    def __init__(
        self, control: Control, *, is_open: bool, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self._control, self._clock, self._wall = control, clock, wall
        self._is_open = is_open
        """On loopback: without any token made, everybody of this machine may do everything."""
        self._answers: dict[str, _Answer] = {}
        self._ask_at = 0.0
        self._asked_at: float | None = None
        self._needs_token = True
        self._failures: dict[str, deque[float]] = {}
        self._aside = Aside("holter-access", threads=2)

    async def admit(self, token: str | None, address: str) -> Caller:
        """`caller`, for the event loop: what is remembered is answered at once, and a store that does not answer delays nobody twice."""
        if not self._is_remembered(token):
            try:
                return await self._aside.ask(lambda: self.caller(token, address))
            except Unavailable:
                if not self._put_off(token):
                    raise
        return self.caller(token, address)

    def _is_remembered(self, token: str | None) -> bool:
        now = self._clock()
        if token is None:
            return not self._is_open or (self._asked_at is not None and now < self._ask_at)
        known = self._answers.get(tokens.digest(token))
        return known is not None and max(known.until, known.retry_at) > now

    def _put_off(self, token: str | None) -> bool:
        """Believe the last answer a little longer, if it is not too old."""
        now = self._clock()
        if token is None:
            self._ask_at = now + FRESH_SECONDS
            return self._asked_at is not None and now - self._asked_at <= STALE_SECONDS
        digest = tokens.digest(token)
        known = self._answers.get(digest)
        if known is None or now - known.until > STALE_SECONDS:
            return False
        self._answers[digest] = replace(known, retry_at=now + FRESH_SECONDS)
        return True

    def close(self) -> None:
        self._aside.close()

    def caller(self, token: str | None, address: str) -> Caller:
        """Who brings this token. Raises `Problem` 401, or 429 after too many that were wrong."""
        if token is None:
            if self._is_open and not self.needs_token():
                return ANYBODY
            raise Problem(
                401,
                "A token is needed",
                field="Authorization",
                remedy="send `Authorization: Bearer hlt_…`; `holter token create` makes one",
            )
        caller = self._find(token)
        if caller is None:
            self._count_failure(address)
            raise Problem(
                401, "No such token", field="Authorization", remedy="it may be revoked or expired; `holter token create` makes a new one"
            )
        return caller

    def needs_token(self) -> bool:
        now = self._clock()
        if self._asked_at is None or now >= self._ask_at:
            try:
                with self._control.read() as connection:
                    self._needs_token = rows.are_any(connection)
                self._asked_at = now
            except Unavailable:
                if not self._put_off(None):
                    raise
            self._ask_at = now + FRESH_SECONDS
        return self._needs_token

    def _find(self, token: str) -> Caller | None:
        digest, now = tokens.digest(token), self._clock()
        known = self._answers.get(digest)
        if known is not None and max(known.until, known.retry_at) > now:
            return known.caller
        try:
            with self._control.read() as connection:
                row = rows.by_digest(connection, digest, self._wall())
        except Unavailable:
            if known is None or not self._put_off(token):
                raise
            return known.caller
        caller = _caller(row) if row and tokens.matches(token, row["hash"]) else None
        if len(self._answers) >= REMEMBERED:
            self._answers.clear()
        self._answers[digest] = _Answer(caller, now + FRESH_SECONDS)
        return caller

    def _count_failure(self, address: str) -> None:
        """Raises `Problem` 429 for the eleventh within a minute. A right token is never refused for its neighbours' wrong ones."""
        now = self._clock()
        if len(self._failures) > ADDRESSES:
            self._failures.clear()
        failed = self._failures.setdefault(address, deque(maxlen=FAILURES))
        if len(failed) == FAILURES and now - failed[0] < FAILURE_SECONDS:
            raise Problem(429, "Too many wrong tokens", remedy="wait a minute, and look at the token", retry_after=FAILURE_SECONDS)
        failed.append(now)


def _caller(row: sa.RowMapping) -> Caller:
    return Caller(row["name"], frozenset(row["scopes"]), row["project"], row["id"])
