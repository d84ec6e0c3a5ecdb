"""What frames say about runs, attempts, agents and events, written by the detection consumer in the transaction of its offset."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sqlalchemy as sa
from holter.frame import Event, Frame

from holter_monitor.store.ports import Entry
from holter_monitor.store.tables import agents, attempts, consumers, run_events, runs
from holter_monitor.store.upserts import insert_new, upsert

CONSUMER = "detection"
AGENT_SECONDS = 5.0
"""An agent's row is written again after this long: 2,048 agents a second would be a load of its own."""
ENDS = {"rank_failed": "failed", "rank_lost": "lost", "rank_terminated": "preempted"}
MAX_EVENT_BYTES = 200
BOOT_LENGTH = 64
REMEMBERED = 50_000
"""Agents and attempts that are kept in mind at most; what is forgotten is read or written once more."""
SILENT_SECONDS = 90.0
"""Six heartbeats."""


@dataclass(slots=True)
class _Agent:
    """One life of a node agent, as far as it was seen."""

    written_at: float = 0.0
    leads: deque[float] = field(default_factory=lambda: deque(maxlen=64))
    """Sent minus received, the newest frames; the largest of them had the least delay, so it is nearest to the clocks' difference."""


@dataclass(slots=True)
class _Attempt:
    first_step: int | None
    last_step: int | None
    number: int


def _add(total: dict[str, int], counts: Mapping[str, int]) -> None:
    for reason, count in counts.items():
        total[reason] = total.get(reason, 0) + count


class Records:
    """Remembers just enough (which attempts and agents are known) to write little. `forget` after a transaction that failed."""

    def __init__(self) -> None:
        self._agents: dict[tuple[str, str, str], _Agent] = {}
        self._attempts: dict[tuple[str, str], _Attempt] = {}

    def forget(self) -> None:
        self._attempts.clear()
        for agent in self._agents.values():
            agent.written_at = 0.0

    def apply(self, connection: sa.Connection, entries: Sequence[Entry]) -> set[str]:
        """Write what the entries say; the answer is the runs that ended in them."""
        if len(self._agents) > REMEMBERED:
            self._agents.clear()
        if len(self._attempts) > REMEMBERED:
            self._attempts.clear()
        by_attempt: dict[tuple[str, str], list[Entry]] = {}
        for entry in entries:
            by_attempt.setdefault((entry.frame.run, entry.frame.attempt), []).append(entry)
        for key, mine in by_attempt.items():
            self._touch(connection, key, mine)
        self._write_agents(connection, entries)
        self._write_attempts(connection, entries)
        return self._write_events(connection, entries)

    def _touch(self, connection: sa.Connection, key: tuple[str, str], entries: Sequence[Entry]) -> None:
        """The attempt of these frames exists and spans their steps."""
        known = self._attempts.get(key) or self._load(connection, key)
        if known is None:
            run, attempt = key
            last = connection.execute(sa.select(sa.func.max(attempts.c.number)).where(attempts.c.run == run)).scalar()
            known = _Attempt(None, None, (last or 0) + 1)
            row = {"run": run, "attempt": attempt, "number": known.number, "started_at": entries[0].received, "state": "running"}
            connection.execute(attempts.insert().values(**row, world_size=1, mesh={}))
        self._attempts[key] = known
        steps = np.concatenate([entry.frame.step for entry in entries])
        steps = steps[steps >= 0]
        if len(steps):
            first, last_step = int(steps.min()), int(steps.max())
            known.first_step = first if known.first_step is None else min(known.first_step, first)
            known.last_step = last_step if known.last_step is None else max(known.last_step, last_step)

    def _load(self, connection: sa.Connection, key: tuple[str, str]) -> _Attempt | None:
        query = sa.select(attempts.c.first_step, attempts.c.last_step, attempts.c.number)
        row = connection.execute(query.where(attempts.c.run == key[0], attempts.c.attempt == key[1])).one_or_none()
        return None if row is None else _Attempt(*row)

    def _write_agents(self, connection: sa.Connection, entries: Sequence[Entry]) -> None:
        newest: dict[tuple[str, str, str], tuple[Frame, float]] = {}
        lost: dict[tuple[str, str, str], dict[str, int]] = {}
        for entry in entries:
            frame = entry.frame
            key = (frame.run, frame.node, life(frame.boot))
            self._agents.setdefault(key, _Agent()).leads.append(frame.sent_ns / 1e9 - entry.received)
            newest[key] = (frame, entry.received)
            if frame.dropped:
                _add(lost.setdefault(key, {}), frame.dropped)
        rows = []
        for key, (frame, received) in newest.items():
            agent = self._agents[key]
            if received - agent.written_at < AGENT_SECONDS and not frame.events and key not in lost:
                continue
            agent.written_at = received
            rows.append(
                {"run": frame.run, "node": frame.node, "boot": key[2], "attempt": frame.attempt, "first_seen_at": received}
                | {"last_seen_at": received, "last_seq": frame.seq, "skew_seconds": max(agent.leads), "dropped": {}}
            )
        upsert(connection, agents, rows, change=("attempt", "last_seen_at", "last_seq", "skew_seconds"))
        for key, counts in lost.items():
            self._add_lost(connection, key, counts)

    def _add_lost(self, connection: sa.Connection, key: tuple[str, str, str], counts: Mapping[str, int]) -> None:
        """A frame declares what was lost since the one before it: the row keeps the sum. Exact, as each frame is applied once, with its offset."""
        here = sa.and_(agents.c.run == key[0], agents.c.node == key[1], agents.c.boot == key[2])
        total = dict(connection.execute(sa.select(agents.c.dropped).where(here)).scalar_one())
        _add(total, counts)
        connection.execute(agents.update().where(here).values(dropped=total))

    def _write_attempts(self, connection: sa.Connection, entries: Sequence[Entry]) -> None:
        spans: dict[tuple[str, str], float] = {}
        for entry in entries:
            spans[entry.frame.run, entry.frame.attempt] = entry.received
        for (run, attempt), received in spans.items():
            known = self._attempts[run, attempt]
            here = sa.and_(attempts.c.run == run, attempts.c.attempt == attempt)
            connection.execute(attempts.update().where(here).values(first_step=known.first_step, last_step=known.last_step))
            connection.execute(runs.update().where(runs.c.id == run).values(updated_at=received))
            if known.last_step is not None:
                connection.execute(runs.update().where(_newest(run, attempt)).values(last_step=known.last_step))
            connection.execute(runs.update().where(runs.c.id == run, runs.c.state.in_(("waiting", "silent"))).values(state="running"))

    def _write_events(self, connection: sa.Connection, entries: Sequence[Entry]) -> set[str]:
        rows = [
            {"run": frame.run, "attempt": frame.attempt, "node": frame.node, "offset": entry.offset, "number": number}
            | _event(event, entry)
            for entry in entries
            for frame in (entry.frame,)
            for number, event in enumerate(frame.events)
        ]
        insert_new(connection, run_events, rows)
        by_attempt: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in rows:
            by_attempt.setdefault((str(row["run"]), str(row["attempt"])), []).append(row)
        return {run for (run, attempt), events in by_attempt.items() if _lifecycle(connection, run, attempt, events)}


def life(boot: str) -> str:
    """The boot as it fits into its column: a frame's may be 200 characters long, an agent's own is a UUID."""
    return boot if len(boot) <= BOOT_LENGTH else hashlib.sha256(boot.encode()).hexdigest()[:BOOT_LENGTH]


def _event(event: Event, entry: Entry) -> dict[str, Any]:
    """A frame's event as a row. The word and the numbers come from outside: whatever is no number becomes none."""
    attrs = event.get("attrs")
    time_ns = event.get("time_ns")
    return {
        "event": str(event.get("event", "unnamed"))[:MAX_EVENT_BYTES],
        "rank": _whole(event.get("rank"), 2**31),
        "step": _whole(event.get("step"), 2**63),
        "at": time_ns / 1e9 if isinstance(time_ns, int) and 0 < time_ns < 2**63 else entry.received,
        "attrs": attrs if isinstance(attrs, dict) else {},
    }


def _whole(value: Any, limit: int) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and -limit <= value < limit else None


def _lifecycle(connection: sa.Connection, run: str, attempt: str, events: Sequence[dict[str, Any]]) -> bool:
    """Ranks that start, finish, fail: the attempt's mesh and state, and the run's; True if the attempt ended by it."""
    here = sa.and_(attempts.c.run == run, attempts.c.attempt == attempt)
    started = [event for event in events if event["event"] == "rank_started"]
    if started:
        mesh, world_size = connection.execute(sa.select(attempts.c.mesh, attempts.c.world_size).where(here)).one()
        mesh = dict(mesh) | dict(_places(started))
        world_size = max([world_size, len(mesh), *(_whole(event["attrs"].get("world_size"), 2**31) or 1 for event in started)])
        connection.execute(attempts.update().where(here).values(mesh=mesh, world_size=world_size, state="running", ended_at=None))
        connection.execute(runs.update().where(_newest(run, attempt)).values(state="running", world_size=world_size))
    ended = next((event for event in events if event["event"] in ENDS), None)
    if ended is not None:
        return _end(connection, run, attempt, state=ENDS[ended["event"]], at=ended["at"])
    if any(event["event"] == "rank_finished" for event in events) and _all_finished(connection, run, attempt):
        return _end(connection, run, attempt, state="finished", at=max(event["at"] for event in events))
    return False


def _places(started: Iterable[dict[str, Any]]) -> Iterable[tuple[str, dict[str, Any]]]:
    for event in started:
        if event["rank"] is None:
            continue
        mesh = event["attrs"].get("mesh")
        place = {"node": event["node"], "gpu": event["attrs"].get("gpu"), "host": event["attrs"].get("host")}
        yield str(event["rank"]), place | (mesh if isinstance(mesh, dict) else {})


def _all_finished(connection: sa.Connection, run: str, attempt: str) -> bool:
    said = sa.and_(run_events.c.run == run, run_events.c.attempt == attempt, run_events.c.event == "rank_finished")
    finished = connection.execute(sa.select(sa.func.count(sa.distinct(run_events.c.rank))).where(said)).scalar_one()
    size = connection.execute(sa.select(attempts.c.world_size).where(attempts.c.run == run, attempts.c.attempt == attempt)).scalar_one()
    return int(finished) >= int(size)


def _end(connection: sa.Connection, run: str, attempt: str, *, state: str, at: float) -> bool:
    """Whether the run ended by it: that of an older attempt is heard late, and the run goes on."""
    here = sa.and_(attempts.c.run == run, attempts.c.attempt == attempt, attempts.c.state == "running")
    if not connection.execute(attempts.update().where(here).values(state=state, ended_at=at)).rowcount:
        return False
    # What it was advised it has heeded, or come to its end without: the next attempt must not stop at it again.
    spent: dict[str, Any] = {"advice": {}} if state == "finished" else {}
    ended = runs.update().where(_newest(run, attempt)).values(state="finished" if state == "finished" else "failed", **spent)
    return connection.execute(ended).rowcount > 0


def _newest(run: str, attempt: str) -> sa.ColumnElement[bool]:
    """The run, if this is its newest attempt."""
    newest = sa.select(attempts.c.attempt).where(attempts.c.run == run).order_by(attempts.c.number.desc()).limit(1).scalar_subquery()
    return sa.and_(runs.c.id == run, newest == attempt)


def silence(connection: sa.Connection, now: float) -> None:
    """Runs of which nothing came for a while are silent: neither running nor finished, and not healthy."""
    quiet = sa.and_(runs.c.state == "running", runs.c.updated_at < now - SILENT_SECONDS)
    connection.execute(runs.update().where(quiet).values(state="silent"))


def committed(connection: sa.Connection) -> int:
    """How far detection has come."""
    row = connection.execute(sa.select(consumers.c.offset).where(consumers.c.name == CONSUMER)).one_or_none()
    return 0 if row is None else int(row[0])


def commit(connection: sa.Connection, offset: int, now: float) -> None:
    upsert(connection, consumers, [{"name": CONSUMER, "offset": offset, "updated_at": now}], change=("offset", "updated_at"))
