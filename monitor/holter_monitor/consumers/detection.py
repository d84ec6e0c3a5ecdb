"""The consumer that judges: frames → findings → incidents, with the runs' records, in one transaction of the control store with its offset.

After a restart each run's engine is restored from its newest snapshot and fed again, silently, what lies between the snapshot and the committed
offset. Once a minute all engines that changed are written, and the log is needed no earlier; a run that ends is written at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import sqlalchemy as sa

from holter_monitor.broadcast import Broadcast
from holter_monitor.consumers.effects import Effects
from holter_monitor.consumers.pipeline import BATCH_FRAMES, Consumer
from holter_monitor.consumers.sieve import STORE_AT_FAULT, Heard, Put, Refused, sift, whole
from holter_monitor.findings import Finding
from holter_monitor.meters import Meters
from holter_monitor.runs import Run
from holter_monitor.store import records, runs, snapshots
from holter_monitor.store.control import Control
from holter_monitor.store.ports import Entry, FrameLog
from holter_monitor.store.rolling import Roller
from holter_monitor.store.tables import step_summaries
from holter_monitor.store.upserts import insert_new
from holter_monitor.stream.cells import Received

logger = logging.getLogger(__name__)
SNAPSHOT_SECONDS = 60.0
TICK_SECONDS = 5.0
REST_SECONDS = 3_600.0
"""A run of which nothing came for so long gives up its place in memory."""
ALARM_SECONDS = 1.0
"""How often time alone may change incidents: reminders, escalations, ends of silences."""
APART_SECONDS = 0.1
"""Two thousand frames a second in batches of the twenty that share a commit of the log would be a hundred transactions a second; in ten they cost a
third. The first frame after a rest waits for nobody."""
GRACE_SECONDS = 90.0
"""After its own start the collector lets this much time pass before silence means anything: it was the collector that was away."""


class Judge(Protocol):
    """One run's engine (`holter_monitor.engine.Engine`), as far as this consumer needs it."""

    def feed_first(self, arrivals: Sequence[Received]) -> tuple[int, list[Finding]]: ...
    def tick(self, now: float) -> list[Finding]: ...
    def finish(self) -> list[Finding]: ...
    def take_summaries(self) -> Sequence[Any]: ...
    def snapshot(self) -> bytes: ...


class Bench(Protocol):
    """Where judges come from."""

    def new(self, run: Run) -> Judge: ...
    def restore(self, run: Run, state: bytes) -> Judge: ...


class Alarm(Protocol):
    """Findings → incidents and their notices (`holter_monitor.alerting.alerting.Alerting`)."""

    def apply(self, connection: sa.Connection, run: Run, findings: Sequence[Finding], now: float) -> None: ...
    def tick(self, connection: sa.Connection, now: float) -> int: ...


class Detection(Consumer):
    name = "detection"
    apart_seconds = APART_SECONDS

    def __init__(
        self,
        log: FrameLog,
        control: Control,
        meters: Meters,
        *,
        bench: Bench,
        alarm: Alarm,
        wake: Callable[[], None],
        broadcast: Broadcast,
        set_aside: Callable[[Sequence[Refused]], None],
    ) -> None:
        super().__init__(log, meters)
        self._set_aside = set_aside
        self._control, self._bench, self._alarm, self._wake, self._broadcast = control, bench, alarm, wake, broadcast
        self._records, self._roller = records.Records(), Roller()
        self._runs: dict[str, Run] = {}
        self._judges: dict[str, Judge] = {}
        self._fed_at: dict[str, float] = {}
        self._changed: set[str] = set()
        self._restored: dict[str, int] = {}
        """Up to which offset the frames of a run were in the state that its engine began with."""
        self._pending: Effects | None = None
        self._silence: Effects | None = None
        self.snapshot_offset = 0
        """From here on the log is needed: all that lies before is in the snapshots."""
        self._snapshot_at = self._tick_at = self._alarm_at = time.monotonic()
        self._started = time.monotonic()

    @property
    def needed_from(self) -> int:
        return self.snapshot_offset

    def begin(self) -> int:
        with self._control.read() as connection:
            committed = records.committed(connection)
            self.snapshot_offset = snapshots.offset(connection)
            live = snapshots.runs(connection, state="running")
        for run in live:
            self._judge_of(run)
        self._replay(committed)
        return committed

    def _replay(self, through: int) -> None:
        """Bring the engines from the snapshots to the committed offset. What they say now was said before."""
        offset = self.snapshot_offset
        while offset < through:
            entries = [entry for entry in self._log.read(offset, BATCH_FRAMES) if entry.offset <= through]
            if not entries:
                return
            self._feed([entry for entry in entries if not self._is_known(entry)])
            for judge in self._judges.values():
                judge.take_summaries()
            offset = entries[-1].offset

    def _is_known(self, entry: Entry) -> bool:
        """Is the frame in the state with which its run's engine began?"""
        self._judge_of(entry.frame.run)
        return entry.offset <= self._restored.get(entry.frame.run, 0)

    def work(self, entries: Sequence[Entry]) -> int:
        effects = self._pending = self._pending or self._judge(entries)
        try:
            self._commit(effects, whole)
        except STORE_AT_FAULT:
            self._forget()
            raise
        except Exception:
            logger.warning("the control store refuses a batch; the record that is to blame is looked for", exc_info=True)
            self._forget()
            self._set_aside(sift(lambda put: self._commit(effects, put), self._forget))
        self._pending = None
        self._announce(effects)
        return effects.entries[-1].offset

    def _forget(self) -> None:
        """The transaction failed: what was written in it is not there."""
        self._records.forget()
        self._roller.forget()

    def _judge(self, entries: Sequence[Entry]) -> Effects:
        effects = Effects(entries, self._feed(entries))
        for run in {entry.frame.run for entry in entries}:
            self._take_summaries(run, effects)
        return effects

    def _feed(self, entries: Sequence[Entry]) -> dict[str, list[Finding]]:
        """What each run's engine finds in its frames."""
        by_run: dict[str, list[Entry]] = {}
        for entry in entries:
            by_run.setdefault(entry.frame.run, []).append(entry)
        found = {run: self._feed_run(run, mine) for run, mine in by_run.items()}
        return {run: findings for run, findings in found.items() if findings}

    def _feed_run(self, run: str, entries: Sequence[Entry]) -> list[Finding]:
        judge = self._judge_of(run)
        self._changed.add(run)
        self._fed_at[run] = time.monotonic()
        arrivals, findings, done = [(entry.frame, entry.received) for entry in entries], [], 0
        while done < len(arrivals):
            try:
                count, found = judge.feed_first(arrivals[done:])
                findings += found
                done += count
            except Exception:
                # Fed again it would fail again, and no other run would be judged any more. The frame is in the log and the samples all the same.
                logger.exception("the engine of run %s failed on the frame at offset %s", run, entries[done].offset)
                self._meters.failures.labels(self.name).inc()
                done += 1
        return findings

    def _judge_of(self, run: str) -> Judge:
        """The run's engine: the one at work, or its snapshot's, or a new one."""
        judge = self._judges.get(run)
        if judge is None:
            with self._control.read() as connection:
                kept = snapshots.state(connection, run)
            facts = self._run_of(run)
            if kept is None:
                judge = self._bench.new(facts)
            else:
                state, self._restored[run] = kept
                judge = self._bench.restore(facts, state)
            self._judges[run] = judge
            self._fed_at[run] = time.monotonic()
        return judge

    def _take_summaries(self, run: str, effects: Effects) -> None:
        effects.summaries += [{"run": run} | asdict(summary) for summary in self._judges[run].take_summaries()]

    def _commit(self, effects: Effects, put: Put) -> None:
        now = self._clock()
        with self._control.write() as connection:
            ended: set[str] = set()
            put(connection, "frame", effects.entries, lambda part: ended.update(self._records.apply(connection, part)))
            for run in ended - effects.finished:
                effects.findings.setdefault(run, []).extend(self._judges[run].finish())
                self._take_summaries(run, effects)
                effects.finished.add(run)
            put(connection, "summary", effects.summaries, lambda part: self._summarise(connection, part))
            for run, findings in effects.findings.items():
                self._hear(connection, put, run, findings, now)
            records.commit(connection, effects.entries[-1].offset, now)
            if effects.finished:  # `finish` is no entry of the log: a replay would not call it
                self._keep(connection, effects.finished, effects.entries[-1].offset, now)
        for findings in effects.findings.values():
            for finding in findings:
                self._meters.findings.labels(finding.kind).inc()

    def _summarise(self, connection: sa.Connection, summaries: Sequence[dict[str, Any]]) -> None:
        insert_new(connection, step_summaries, summaries)
        self._roller.roll(connection, summaries)

    def _hear(self, connection: sa.Connection, put: Put, run: str, findings: Sequence[Finding], now: float) -> None:
        def apply(part: Sequence[Heard]) -> None:
            self._alarm.apply(connection, self._run_of(run), [heard.finding for heard in part], now)

        put(connection, "finding", [Heard(run, finding) for finding in findings], apply)

    def _keep(self, connection: sa.Connection, of: Iterable[str], offset: int, now: float) -> None:
        """Write the states of some runs, in which all their frames up to `offset` are."""
        snapshots.keep(connection, {run: self._judges[run].snapshot() for run in of}, offset, now)

    def idle(self) -> None:
        now = time.monotonic()
        if now - self._alarm_at >= ALARM_SECONDS:
            self._alarm_at = now
            with self._control.write() as connection:
                touched = self._alarm.tick(connection, self._clock())
            if touched:
                self._wake()
        if now - self._tick_at >= TICK_SECONDS and now - self._started >= GRACE_SECONDS and not self._log.wait(self.offset, 0):
            self._tick_at = now
            self._tick()
        if now - self._snapshot_at >= SNAPSHOT_SECONDS:
            self._snapshot_at = now
            self.take_snapshots()

    def _tick(self) -> None:
        """Silence is judged only by who is up to date with the log."""
        now = self._clock()
        effects = self._silence = self._silence or self._judge_silence(now)

        def commit(put: Put) -> None:
            with self._control.write() as connection:
                records.silence(connection, now)
                put(connection, "summary", effects.summaries, lambda part: self._summarise(connection, part))
                for run, findings in effects.findings.items():
                    self._hear(connection, put, run, findings, now)
                if effects.summaries:  # steps that no entry of the log closed: a replay would not close them
                    self._keep(connection, {row["run"] for row in effects.summaries}, self.offset, now)

        self._set_aside(sift(commit, self._forget))
        self._silence = None
        self._announce(effects)

    def _judge_silence(self, now: float) -> Effects:
        effects = Effects()
        for run, judge in self._judges.items():
            findings = judge.tick(now)
            if findings:
                effects.findings[run] = findings
            self._take_summaries(run, effects)
        self._changed.update(row["run"] for row in effects.summaries)
        return effects

    def take_snapshots(self) -> None:
        """Write the state of all engines that changed, and let the log go up to here."""
        now = self._clock()
        with self._control.write() as connection:
            self._keep(connection, self._changed, self.offset, now)
            snapshots.release(connection, self.offset, now)
        self._changed.clear()
        self._restored.clear()
        resting = [run for run, fed in self._fed_at.items() if time.monotonic() - fed > REST_SECONDS]
        for run in resting:  # its snapshot holds all it knows; thousands of finished runs must not stay in memory
            del self._judges[run], self._fed_at[run]
        self.snapshot_offset = self.offset

    def _announce(self, effects: Effects) -> None:
        for news in effects.news():
            self._broadcast.publish(news)
        if effects.findings:
            self._wake()

    def _run_of(self, run: str) -> Run:
        if run not in self._runs:
            with self._control.read() as connection:
                self._runs[run] = runs.load(connection, run) or Run(id=run, project="", name=run)
        return self._runs[run]

    def forget(self, run: str) -> None:
        """The run's facts changed: ask the store again."""
        self._runs.pop(run, None)
