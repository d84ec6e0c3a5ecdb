"""Hangs of a run's ranks, and their stacks: taken in a thread of its own, so that no stack holds up the reading of rings."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from holter.node.dumps import Dumps
from holter.node.process import is_stopped
from holter.node.stacks import ask_flight_recorder, signal_number, stacks_of
from holter.node.watched import WatchedRank, WatchedRun
from holter.ring import State, Word

EARLY_SECONDS = 240.0
"""Stacks are taken after so long a quiet even where it may not be called a hang yet: after 600 s NCCL ends the processes that could tell."""
APART_SECONDS = 20.0
"""Between two takings for a request: whoever asks again and again gets no more of the node's time."""
SEEK_SECONDS = 60.0
"""How long after a request for them, or a rank's sudden end, the flight recorder's dumps are sought, and an agent without ranks waits for them."""
MAX_REQUEST = 64


@dataclass(slots=True)
class _Word:
    """An event that waits for the stacks that belong to it."""

    word: str
    rank: WatchedRank | None
    step: int | None
    attrs: dict[str, Any] = field(default_factory=dict)


class Witness:
    """One run's. `look` is asked about once a second and never waits."""

    def __init__(self, run: WatchedRun) -> None:
        self._run = run
        self._waiting: list[_Word] = []
        self._thread: threading.Thread | None = None
        self._stacks: list[dict[str, object]] = []
        self._heard = ""
        """The newest request that was taken up."""
        self._began_at = float("-inf")
        self._is_told = False
        """This quiet has been witnessed."""
        self._dumps = Dumps()
        self._seek_until = float("-inf")

    @property
    def is_busy(self) -> bool:
        """Whether something is still to be said of this run."""
        return bool(self._waiting or self._run.events) or (self._dumps.is_seeking and time.monotonic() < self._seek_until)

    def look(self) -> None:
        if self._thread is not None and not self._thread.is_alive():
            self.tell()
        self._watch_progress(time.monotonic_ns())
        self._hear()
        if self._waiting and self._thread is None:
            self._begin()
        if self._is_told or time.monotonic() < self._seek_until or any(rank.progress.is_hung for rank in self._run.ranks):
            self._seek()
        for rank, dump in self._dumps.take():
            self._run.say("flight_recorder", rank, **dump)

    def part(self, rank: WatchedRank) -> None:
        """A rank has ended, and not by itself: NCCL's watchdog writes its dump before it ends the process."""
        if rank.ring.words[Word.STATE] != State.FINISHED:
            self._seek_until = time.monotonic() + SEEK_SECONDS
            self._dumps.ask(rank.ring.rank, rank.ring.meta.get("flight_recorder"))

    def tell(self) -> None:
        """Say what waits, with the stacks if they are there by now."""
        waiting, self._waiting, self._thread = self._waiting, [], None
        stacks, self._stacks = self._stacks, []
        is_said = False
        for told in waiting:
            # A rank that ended meanwhile does not hang any more; where it stood is still worth knowing.
            is_gone = told.rank is not None and told.rank not in self._run.ranks
            word = "stacks" if is_gone else told.word
            own = stacks if word == "stacks" or not is_said else []
            is_said = True
            self._run.say(word, None if told.rank is None else told.rank.ring.rank, told.step, **told.attrs, stacks=own)

    def _watch_progress(self, now: int) -> None:
        """Hangs and their ends. The stacks of all ranks of the node go with the first rank that hangs."""
        for rank in self._run.ranks:
            told = rank.progress.look(rank.ring, now, is_stopped=(stopped := is_stopped(rank.process.pid)))
            if told is None:
                continue
            word, seconds = told
            attrs: dict[str, Any] = {"seconds": round(seconds, 1), "phase": rank.progress.phase_name()}
            if word == "rank_hung":
                attrs |= {"phase": "a stopped process (SIGSTOP or a debugger)", "stopped": True} if stopped else {}
                attrs["flight_recorder_asked"] = self._ask_recorder(rank)
                self._waiting.append(_Word(word, rank, rank.pace.step, attrs))
            else:
                self._run.say(word, rank.ring.rank, rank.pace.step, **attrs)
        self._watch_quiet()

    def _watch_quiet(self) -> None:
        quiet = max((rank.progress.quiet_seconds for rank in self._run.ranks), default=0.0)
        if quiet < EARLY_SECONDS:
            self._is_told = False
        elif not self._is_told:
            self._is_told = True
            if not any(rank.progress.is_hung for rank in self._run.ranks):
                self._waiting.append(_Word("stacks", None, self._farthest(), {"reason": f"no progress for {quiet:.0f} s"}))

    def _hear(self) -> None:
        """A request that rode in an acknowledgement. One that comes too soon after the last waits; the newest counts."""
        request = self._run.destination.stacks_asked.get("id")
        if not isinstance(request, str) or not 0 < len(request) <= MAX_REQUEST or request == self._heard:
            return
        if time.monotonic() - self._began_at < APART_SECONDS or not self._run.ranks:
            return
        self._heard = request
        for rank in self._run.ranks:
            self._ask_recorder(rank)
        self._waiting.append(_Word("stacks", None, self._farthest(), {"request": request}))

    def _ask_recorder(self, rank: WatchedRank) -> bool:
        pipe = rank.ring.meta.get("flight_recorder_pipe")
        self._seek_until = time.monotonic() + SEEK_SECONDS
        return bool(pipe) and ask_flight_recorder(str(pipe))

    def _seek(self) -> None:
        for rank in self._run.ranks:
            self._dumps.ask(rank.ring.rank, rank.ring.meta.get("flight_recorder"))

    def _farthest(self) -> int | None:
        return max((rank.pace.step for rank in self._run.ranks if rank.pace.step is not None), default=None)

    def _begin(self) -> None:
        pids, dumps = {}, {}
        for rank in self._run.ranks:
            pids[rank.ring.rank] = rank.process.pid
            number = signal_number(str(rank.ring.meta.get("stack_signal") or ""))
            if number is not None:
                dumps[rank.ring.rank] = (number, rank.ring.path.with_suffix(".stacks"))
        self._began_at = time.monotonic()

        def take() -> None:
            self._stacks = stacks_of(pids, dumps)

        self._thread = threading.Thread(target=take, name="holter-stacks", daemon=True)
        self._thread.start()
