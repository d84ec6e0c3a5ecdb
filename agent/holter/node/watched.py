"""What the node agent knows of a run and its ranks, and the frames it makes of it."""

from __future__ import annotations

import json
import logging
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from holter.checkpoints import plan
from holter.frame import Event, Frame, encode
from holter.node import lives
from holter.node.harvest import Columns, Pace
from holter.node.process import ProcessWatch
from holter.node.progress import Progress
from holter.node.reader import EVENT_TORN, RingReader
from holter.node.records import Class
from holter.node.shipper import Destination
from holter.ring import Word
from holter.samplers import Place

_log = logging.getLogger("holter.node")
FLUSH_SECONDS = 1.0
FLUSH_BYTES = 256 * 1024
HEARTBEAT_SECONDS = 15.0


@dataclass(slots=True)
class WatchedRank:
    """One ring and what is known of its rank."""

    ring: RingReader
    pace: Pace
    process: ProcessWatch
    progress: Progress = field(default_factory=Progress)
    advice_shown: dict[str, Any] = field(default_factory=dict)
    garbage_ns: int = 0

    def garbage_seconds(self) -> float:
        """What the rank's garbage collector has taken since this was last asked."""
        total = self.ring.words[Word.GARBAGE]
        taken, self.garbage_ns = total - self.garbage_ns, total
        return taken / 1e9


@dataclass(eq=False)
class WatchedRun:
    """One attempt of one run on this node: its ranks, its spool, and the identity of its frames."""

    about: dict[str, Any]
    attempt: str
    node: str
    destination: Destination
    ranks: list[WatchedRank] = field(default_factory=list)
    boot: str = field(default_factory=lambda: str(uuid.uuid4()))
    seq: int = 0
    columns: Columns = field(default_factory=Columns)
    events: list[Event] = field(default_factory=list)
    samples: Columns = field(default_factory=Columns)
    dropped: dict[str, int] = field(default_factory=dict)
    flushed_at: float = 0.0

    def count(self, drops: dict[str, int]) -> None:
        for reason, number in drops.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + number

    def say(self, word: str, rank: int | None, step: int | None = None, **attrs: Any) -> None:
        """Put an event of the agent's own on the record."""
        self.events.append({"event": word, "rank": rank, "step": step, "time_ns": time.time_ns(), "attrs": attrs})

    def begin_life(self) -> None:
        """The first rank is there: if the node goes down from now on, rows go with it."""
        try:
            lives.begin(self.destination.spool.folder, self.attempt, self.node, self.boot)
        except OSError as error:
            _log.warning("a power loss would not be told of (%s)", error)

    def end_life(self) -> None:
        """A rank has parted: after the last one nothing is left that a power loss could take."""
        if not self.ranks and self.destination.spool.sync():
            lives.end(self.destination.spool.folder)

    @property
    def is_due(self) -> bool:
        """Whether what was read should be spooled now: at once for events and values that are not finite, else in time."""
        age = time.monotonic() - self.flushed_at
        if self.events or self.columns.is_urgent:
            return True
        if self.columns.rows or self.samples.rows:
            return age >= FLUSH_SECONDS or self.columns.rows * 8 * (len(self.columns.pieces) + 3) >= FLUSH_BYTES
        return age >= HEARTBEAT_SECONDS and (bool(self.ranks) or self.has_losses)

    @property
    def has_losses(self) -> bool:
        """Whether something was lost that no frame has declared."""
        return bool(self.dropped or self.destination.untold or self.destination.spool.dropped)

    def flush(self) -> None:
        """Spool what was read, then tell the rings that it is safe.

        An agent may be killed between any two lines of this: each frame's note says how far the rings had been read when it was written, so
        the next agent takes neither its rows nor its losses again, and no frame is acknowledged, and with it its note forgotten, before the
        rings know themselves.
        """
        spool = self.destination.spool
        with spool.held():
            self.count(spool.take_dropped())
            self.count(self.destination.take_untold())
            events, columns, samples = self.events, self.columns, self.samples
            self.events, self.columns, self.samples = [], Columns(), Columns()
            torn = self.dropped.pop(EVENT_TORN, 0)
            # Rows first: an end that arrives before the last steps would close the book on them.
            if columns.rows:
                self._spool(Class.POINTS, columns, [])
            if samples.rows:
                self._spool(Class.SAMPLES, samples, [])
            if events or torn or not (columns.rows or samples.rows):
                self.count({EVENT_TORN: torn} if torn else {})
                self._spool(Class.EVENTS, Columns(), events, with_events=True)
            for rank in self.ranks:
                rank.ring.settle()
        self.flushed_at = time.monotonic()

    def _spool(self, kind: Class, columns: Columns, events: list[Event], *, with_events: bool = False) -> None:
        dropped, self.dropped = self.dropped, {}
        note = json.dumps({rank.ring.path.name: rank.ring.mark(with_events=with_events) for rank in self.ranks}).encode()
        frame = Frame(
            run="spooled",
            attempt=self.attempt,
            node=self.node,
            boot=self.boot,
            seq=self.seq,
            sent_ns=0,
            rank=np.concatenate(columns.ranks) if columns.ranks else np.empty(0, np.int32),
            step=np.concatenate(columns.steps) if columns.steps else np.empty(0, np.int64),
            time_ns=np.concatenate(columns.times) if columns.times else np.empty(0, np.int64),
            metrics=columns.metrics(),
            events=events,
            dropped=dropped,
        )
        self.seq += 1
        self.destination.spool.append(kind, encode(frame), rows=columns.rows, events=len(events), note=note)


def place(rank: WatchedRank) -> Place:
    """Where the samplers find this rank: its process, and the GPU that is its own."""
    meta = rank.ring.meta
    return Place(
        pid=rank.ring.process[0],
        local_rank=int(meta.get("local_rank", 0)),
        visible_gpus=meta.get("visible_gpus"),
        checkpoints=plan.stored(meta.get("checkpoints")),
    )
