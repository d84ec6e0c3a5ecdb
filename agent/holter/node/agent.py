"""The node agent's loop: find rings, read them, watch their ranks, pack frames, spool. The shipper thread does the rest."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

from holter import __version__
from holter.frame import NO_STEP, NODE_RANK
from holter.node.destinations import Destinations
from holter.node.harvest import Pace
from holter.node.peaks import flops_ratio, model
from holter.node.process import ProcessWatch, ending_of
from holter.node.reader import RingError, RingReader
from holter.node.sampling import Sampling
from holter.node.shipper import Shipper
from holter.node.sweep import sweep
from holter.node.watched import WatchedRank, WatchedRun, place
from holter.node.witness import Witness
from holter.ring import State, Word
from holter.samplers import NODE, Sample, samplers
from holter.settings import Settings, private_folder

_log = logging.getLogger("holter.node")
LOOK_SECONDS = 0.1
LINGER_SECONDS = 30.0
"""How long the agent tries in vain to ship after the last rank ended; what is left waits for the next agent of the node."""


class NodeAgent:
    """Reads every ring in `rings` until the last rank ended and the spool is shipped, or for ever as a service."""

    def __init__(self, settings: Settings, rings: Path, processes: dict[int, int] | None = None, *, is_service: bool = False) -> None:
        self._processes = processes or {}
        self._settings, self._rings, self._is_service = settings, rings, is_service
        self._runs: dict[tuple[str, str, str], WatchedRun] = {}
        self._witnesses: dict[WatchedRun, Witness] = {}
        self._known: dict[Path, WatchedRank] = {}
        self.is_stopping = False
        self._idle_since = time.monotonic()
        self._synced_at = 0.0
        self._sampling = Sampling(samplers(), rings, self._take_sample, self._tell_off)
        spools = self._spool_root()
        self._shipper = Shipper(settings, spools / "quarantine")
        self._destinations = Destinations(spools, rings / "overflow", self._shipper)

    def _spool_root(self) -> Path:
        try:
            return private_folder(self._settings.spool_folder())
        except OSError as error:
            _log.warning("no spool on disk (%s); frames wait in shared memory", error)
            return private_folder(self._rings / "spool")

    def run(self) -> None:
        """The life of the agent. A torn file or a strange ring is logged and left; nothing ends this loop but the end."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sweep(self._rings)
        self._destinations.adopt_leftovers()
        # Before the first frame goes: with it would go its note of how far these rings had been read.
        self._find_rings()
        self._shipper.start()
        self._look()
        while not self._is_finished():
            time.sleep(LOOK_SECONDS)
            self._look()
        self._end()

    def _stop(self, _signal: int, _frame: object) -> None:
        self.is_stopping = True

    # -- rings -----------------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        self._find_rings()
        for run in list(self._runs.values()):
            for rank in list(run.ranks):
                try:
                    self._read(run, rank)
                except Exception:  # noqa: BLE001  a ring is bytes that a dying process wrote: one torn ring must not cost the others
                    self._set_aside(run, rank)
            if run.is_due:
                run.flush()
                self._shipper.wake()
        now = time.monotonic()
        if now - self._synced_at >= 1.0:
            self._synced_at = now
            for run in self._runs.values():
                run.destination.spool.sync()
            for witness in self._witnesses.values():
                witness.look()
            self._forget_ended()
            self._destinations.forget_shipped([run.destination for run in self._runs.values()])
        live = self._live_runs()
        self._shipper.is_hurried = not (live or self._is_service)
        if live:
            self._idle_since = now
            self._sampling.look([place(rank) for run in live for rank in run.ranks])

    def _live_runs(self) -> list[WatchedRun]:
        return [run for run in self._runs.values() if run.ranks]

    def _find_rings(self) -> None:
        for path in self._rings.glob("*.ring"):
            if path in self._known:
                continue
            try:
                ring = RingReader(path)
            except (RingError, OSError) as error:
                _log.warning("left alone: %s", error)
                path.rename(path.with_suffix(".strange"))
                continue
            self._adopt(ring)

    def _adopt(self, ring: RingReader) -> None:
        run = self._run_of(ring.meta)
        self._recover_tails(run, ring)
        rank = WatchedRank(
            ring, Pace(flops_ratio=flops_ratio(ring.meta)), ProcessWatch(*ring.process, self._processes.pop(ring.process[0], None))
        )
        if not run.ranks:
            run.begin_life()
        run.ranks.append(rank)
        self._known[ring.path] = rank
        is_new = ring.position == (0, 0)
        ring.beat()
        if is_new:
            meta = ring.meta
            keys = ("pid", "host", "local_rank", "world_size", "mesh", "mesh_sizes", "config", "versions")
            gpu = model(int(meta.get("local_rank") or 0)) or None
            run.say("rank_started", ring.rank, gpu=gpu, **{key: meta.get(key) for key in keys})

    def _run_of(self, meta: dict[str, Any]) -> WatchedRun:
        key = (str(meta.get("project", "default")), str(meta.get("name", "run")), str(meta.get("attempt", "0")))
        if key not in self._runs:
            about = {"project": key[0], "name": key[1], "world_size": meta.get("world_size", 1), "config": meta.get("config") or {}}
            if meta.get("reference"):
                about["reference"] = meta["reference"]
            node = str(meta.get("node") or "node")
            run = WatchedRun(about, key[2], node, self._destinations.of(about))
            self._runs[key] = run
            self._witnesses[run] = Witness(run)
            run.say("agent_started", None, version=__version__, ranks=[])
        return self._runs[key]

    def _recover_tails(self, run: WatchedRun, ring: RingReader) -> None:
        """An agent that was killed between spooling a frame and telling the ring would otherwise read the same rows again."""
        for note in run.destination.spool.last_notes():
            tails = json.loads(note).get(ring.path.name) if note else None
            if tails is not None:
                ring.go_to(*tails)

    def _read(self, run: WatchedRun, rank: WatchedRank) -> None:
        ring = rank.ring
        ring.beat()
        if rank.advice_shown != run.destination.advice:
            rank.advice_shown = run.destination.advice
            ring.write_advice(rank.advice_shown)
        # Looked at before reading: what a dead rank wrote is all there when it is read afterwards.
        is_over = ring.words[Word.STATE] in (State.FINISHED, State.FAILED) or not rank.process.is_alive
        rows, events = ring.take_rows(), ring.take_events()
        rank.progress.learn(rows, ring.words[Word.PHASE_SINCE])
        run.columns.add(ring, rows, rank.pace)
        run.events.extend(events)
        run.count(ring.take_drops())
        if is_over and ring.is_read:
            self._part(run, rank)

    def _set_aside(self, run: WatchedRun, rank: WatchedRank) -> None:
        _log.exception("the ring of rank %s cannot be read on", rank.ring.rank)
        run.count({"ring_torn": 1})
        run.ranks.remove(rank)
        del self._known[rank.ring.path]
        rank.ring.path.rename(rank.ring.path.with_suffix(".strange"))
        rank.process.close()

    def _part(self, run: WatchedRun, rank: WatchedRank) -> None:
        """A rank has ended and all it wrote is spooled: say how it ended, and take its ring away."""
        ring = rank.ring
        evidence = rank.process.memory_evidence() if ring.words[Word.STATE] == State.RUNNING else ""
        ending = ending_of(ring.words[Word.STATE], rank.process.wait_status(), evidence)
        if ending.word is not None:
            run.say(ending.word, ring.rank, rank.pace.step, **ending.attrs, last_step=rank.pace.step)
        rank.process.close()
        run.flush()
        self._witnesses[run].part(rank)
        run.ranks.remove(rank)
        run.end_life()
        del self._known[ring.path]
        ring.path.unlink(missing_ok=True)
        ring.path.with_suffix(".stacks").unlink(missing_ok=True)
        ring.close()

    # -- samples ---------------------------------------------------------------------------------------------------------------

    def _take_sample(self, sample: Sample) -> None:
        live = self._live_runs()
        owners = {rank.ring.process[0]: (run, rank) for run in live for rank in run.ranks}
        for pid, values in sample.values.items():
            if pid == NODE:
                for run in live:
                    # Where the run was then: without a step, nobody could tell what the node did around an incident.
                    reached = [rank.pace.step for rank in run.ranks if rank.pace.step is not None]
                    run.samples.add_sample(NODE_RANK, max(reached, default=NO_STEP), values)
            elif pid in owners:
                run, rank = owners[pid]
                if "process_memory_rss_bytes" in values:
                    values["process_gc_pause_seconds"] = rank.garbage_seconds()
                run.samples.add_sample(rank.ring.rank, NO_STEP if rank.pace.step is None else rank.pace.step, values)
        for word, pid, attrs in sample.events:
            for run in [owners[pid][0]] if pid in owners else live:
                run.say(word, owners[pid][1].ring.rank if pid in owners else None, **attrs)

    def _tell_off(self, sampler: str, reason: str) -> None:
        for run in self._live_runs():
            run.say("sampler_off", None, sampler=sampler, reason=reason)

    # -- the end ---------------------------------------------------------------------------------------------------------------

    def _forget_ended(self) -> None:
        """A service sees a thousand runs: of one that has ended and of which all is said nothing is kept."""
        for key, run in list(self._runs.items()):
            is_said = not (run.ranks or run.has_losses or self._witnesses[run].is_busy)
            if is_said and run.destination.spool.is_empty and time.monotonic() - run.flushed_at > LINGER_SECONDS:
                del self._runs[key], self._witnesses[run]

    def _is_finished(self) -> bool:
        if self.is_stopping:
            return True
        if self._is_service or self._live_runs():
            return False
        is_said = not any(witness.is_busy for witness in self._witnesses.values()) and not any(
            run.has_losses for run in self._runs.values()
        )
        is_shipped = is_said and self._destinations.are_shipped
        return is_shipped or time.monotonic() - max(self._idle_since, self._shipper.settled_at) > LINGER_SECONDS

    def _end(self) -> None:
        for witness in self._witnesses.values():
            witness.tell()
        for run in self._runs.values():
            if run.ranks or self.is_stopping:
                run.say("agent_stopped", None, version=__version__, ranks=[rank.ring.rank for rank in run.ranks])
                run.flush()
        self._shipper.stop()
        self._shipper.join(timeout=12.0)
        for run in self._runs.values():
            if run.has_losses:
                run.flush()  # waits in the spool for the next agent of the node
        self._destinations.close()
        _log.info("ended, pid %d", os.getpid())
