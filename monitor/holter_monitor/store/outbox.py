"""The outbox in the control store: notices are leased by conditional UPDATE, so two workers never send the same one at once."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from holter_monitor.notify.limits import FALLBACK_AFTER
from holter_monitor.notify.notice import Notice
from holter_monitor.notify.outbox import LEASE_SECONDS, Delivery
from holter_monitor.store.tables import outbox


class SqlOutbox:
    """`notify.outbox.Outbox` on SQLite or PostgreSQL. `fallback`: the receiver that is told when another cannot be reached."""

    def __init__(self, engine: sa.Engine, fallback: str | None = None) -> None:
        self.engine, self.fallback = engine, fallback
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"

    def claim(self, receiver: str, limit: int, now: float) -> list[Delivery]:
        query = sa.select(outbox.c.id).where(outbox.c.receiver == receiver, _due(now), _first_in_line())
        query = query.order_by(outbox.c.urgency.desc(), outbox.c.id).limit(limit)
        with self.engine.connect() as reading:
            ids = list(reading.scalars(query))
        if not ids:
            return []
        lease = {"status": "leased", "lease_owner": self.owner, "lease_until": now + LEASE_SECONDS, "attempts": outbox.c.attempts + 1}
        with self.engine.begin() as connection:
            taken = [row for row in ids if connection.execute(outbox.update().where(outbox.c.id == row, _due(now)).values(lease)).rowcount]
            rows = connection.execute(sa.select(outbox).where(outbox.c.id.in_(taken))).all() if taken else []
            threads = self._threads(connection, receiver, {row.conversation for row in rows})
        order = {row: place for place, row in enumerate(ids)}
        return [_delivery(row, threads.get(row.conversation)) for row in sorted(rows, key=lambda row: order[row.id])]

    def count_due(self, receiver: str, now: float) -> int:
        with self.engine.connect() as connection:
            query = sa.select(sa.func.count()).select_from(outbox).where(outbox.c.receiver == receiver, _due(now), _first_in_line())
            return connection.scalar(query) or 0

    def next_at(self, receiver: str) -> float | None:
        at = sa.case((outbox.c.status == "ready", outbox.c.next_at), else_=outbox.c.lease_until)
        with self.engine.connect() as connection:
            query = sa.select(sa.func.min(at)).where(
                outbox.c.receiver == receiver, outbox.c.status.in_(("ready", "leased")), _first_in_line()
            )
            at_next: float | None = connection.scalar(query)
        return at_next

    def sent(self, deliveries: Sequence[Delivery], provider_id: str | None, now: float) -> None:
        self._mark(deliveries, status="sent", sent_at=now, provider_id=provider_id, last_error=None)

    def failed(self, deliveries: Sequence[Delivery], error: str, next_at: float, now: float) -> None:
        late = [delivery for delivery in deliveries if now - delivery.created >= FALLBACK_AFTER]
        self._mark(deliveries, late, now, status="ready", next_at=next_at, last_error=error, lease_until=None)

    def refused(self, deliveries: Sequence[Delivery], error: str, now: float) -> None:
        self._mark(deliveries, deliveries, now, status="dead", last_error=error, lease_until=None)

    def release(self) -> int:
        """Give back the leases of workers that are gone: for the start of the one process that owns an embedded store."""
        with self.engine.begin() as connection:
            statement = outbox.update().where(outbox.c.status == "leased").values(status="ready", lease_until=None)
            return connection.execute(statement).rowcount

    def retire(self, receivers: Sequence[str], now: float) -> int:
        """Notices for receivers that the policy no longer has: dead, with the reason, and on to the fallback. How many there were."""
        with self.engine.begin() as connection:
            left = sa.and_(outbox.c.receiver.not_in(receivers), outbox.c.status.in_(("ready", "leased")))
            connection.execute(outbox.update().where(left).values(status="leased", lease_owner=self.owner))
            query = sa.select(outbox).where(
                outbox.c.receiver.not_in(receivers), outbox.c.lease_owner == self.owner, outbox.c.status == "leased"
            )
            rows = connection.execute(query).all()
        self.refused([_delivery(row, None) for row in rows], "the policy has no receiver of this name any more", now)
        return len(rows)

    def _mark(self, deliveries: Sequence[Delivery], reroute: Sequence[Delivery] = (), now: float = 0.0, **values: Any) -> None:
        # Only what is still ours: a worker that slept through its lease must not mark what another one has taken over, be it of this process.
        # Each claim counts one more try, so the try that we made tells our lease from a later one.
        held = sa.and_(outbox.c.lease_owner == self.owner, outbox.c.status == "leased")
        with self.engine.begin() as connection:
            marked = set()
            for delivery in deliveries:
                ours = sa.and_(outbox.c.id == delivery.id, outbox.c.attempts == delivery.attempts, held)
                if connection.execute(outbox.update().where(ours).values(values)).rowcount:  # no RETURNING: SQLite before 3.35
                    marked.add(delivery.id)
            for delivery in reroute:
                if delivery.id in marked:
                    self._to_fallback(connection, delivery, now)

    def _to_fallback(self, connection: sa.Connection, delivery: Delivery, now: float) -> None:
        row = connection.execute(sa.select(outbox).where(outbox.c.id == delivery.id)).one()
        key = f"{row.idempotency_key}:for:{row.receiver}"[:255]
        if self.fallback in (None, row.receiver) or ":for:" in row.idempotency_key:
            return
        if connection.scalar(sa.select(outbox.c.id).where(outbox.c.idempotency_key == key)) is not None:
            return
        words = f"receiver {row.receiver} cannot be reached: {row.last_error}"
        notice = {**row.notice, "key": key, "note": "; ".join(filter(None, [row.notice.get("note"), words]))}
        values = {
            "incident": row.incident,
            "conversation": row.conversation,
            "receiver": self.fallback,
            "transition": row.transition,
            "urgency": row.urgency,
        }
        values |= {"idempotency_key": key, "position": row.position, "notice": notice, "next_at": now, "created_at": now}
        connection.execute(outbox.insert().values(values))

    @staticmethod
    def _threads(connection: sa.Connection, receiver: str, conversations: set[str]) -> dict[str, str]:
        """What the receiver called the first message of each conversation."""
        query = sa.select(outbox.c.conversation, outbox.c.provider_id).where(
            outbox.c.receiver == receiver, outbox.c.conversation.in_(conversations), outbox.c.provider_id.is_not(None)
        )
        threads: dict[str, str] = {}
        for row in connection.execute(query.order_by(outbox.c.id)):
            threads.setdefault(row.conversation, row.provider_id)
        return threads


def _due(now: float) -> sa.ColumnElement[bool]:
    ready = sa.and_(outbox.c.status == "ready", outbox.c.next_at <= now)
    return sa.or_(ready, sa.and_(outbox.c.status == "leased", outbox.c.lease_until <= now))


def _first_in_line() -> sa.ColumnElement[bool]:
    """No older notice of the same conversation to the same receiver is still under way: a resolve never overtakes its trigger."""
    older = outbox.alias("older")
    same = sa.and_(older.c.conversation == outbox.c.conversation, older.c.receiver == outbox.c.receiver, older.c.id < outbox.c.id)
    return ~sa.exists().where(same, older.c.status.in_(("ready", "leased")))


def _delivery(row: sa.Row[Any], thread: str | None) -> Delivery:
    return Delivery(row.id, Notice.from_json(row.notice, thread=thread), row.attempts, row.created_at)
