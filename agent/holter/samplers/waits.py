"""What a rank's process and its dataloader workers wait for: a CPU, or I/O. Their own waiting, whatever else this node does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from holter.samplers import Place, Sample, SamplerAbsent
from holter.samplers.trees import stat, trees

_LOOKS = 10
"""One answer every so many looks: a state is seen in passing, so one look tells nothing."""
_ANSWERS = 6
"""So many answers with the same families: to find them takes a look at every process of the node."""
_BLOCK_TICKS = 39
"""Place of `delayacct_blkio_ticks` among the fields that `stat` gives (proc_pid_stat(5), field 42)."""
_MANY = 64
"""Processes of a rank that are looked at; a tree of more is an accident."""
_READERS, _MANY_THREADS = 8, 1024
"""Threads of a rank that are looked at, and among how many they are sought."""


@dataclass(slots=True)
class Life:
    """What one process had waited at the last answer, and how often it was seen blocked since."""

    at: float
    queued_ns: int | None
    blocked_ticks: int
    looks: int = 0
    blocked: int = 0


@dataclass(kw_only=True)
class Waits:
    """`process_cpu_wait_ratio`: share of the time in which the main thread was ready to run and had no CPU (`schedstat`: exact).
    `process_io_wait_ratio`: share in which it was in uninterruptible sleep, which is where a read from a disk, NFS or FUSE waits: by looks
    twice a second, or exact where the kernel accounts for delays (`sysctl kernel.task_delayacct=1`). Of each rank, the worst of its processes.

    Looked at are the main threads, and of the rank's other threads the few that read most: loaders of threads (tf.data, DALI) are among them.
    """

    name: ClassVar[str] = "waits"
    every_seconds: ClassVar[float] = 0.5

    proc: Path = Path("/proc")
    clock: Callable[[], float] = time.monotonic
    looks: int = field(init=False, default=0)
    families: dict[int, list[int]] = field(init=False, default_factory=dict)
    lives: dict[int, Life] = field(init=False, default_factory=dict)
    ticks_per_second: int = field(init=False, default_factory=lambda: os.sysconf("SC_CLK_TCK"))

    def sample(self, places: Sequence[Place]) -> Sample:
        """Raises `SamplerAbsent` where there is no `/proc`."""
        if not (self.proc / "self" / "stat").exists():
            raise SamplerAbsent("no /proc to read")
        if self.looks % (_LOOKS * _ANSWERS) == 0 or any(place.pid not in self.families for place in places):
            found = trees((place.pid for place in places), self.proc)
            self.families = {pid: family[:_MANY] + self._readers(pid) for pid, family in found.items()}
        self.looks += 1
        for pid in {each for place in places for each in self.families.get(place.pid, ())}:
            self._look(pid)
        return Sample() if self.looks % _LOOKS else Sample(values=self._answers(places))

    def _look(self, pid: int) -> None:
        fields = stat(pid, self.proc)
        if len(fields) <= _BLOCK_TICKS:
            self.lives.pop(pid, None)
            return
        life = self.lives.get(pid)
        if life is None:
            life = self.lives[pid] = Life(self.clock(), self._queued(pid), int(fields[_BLOCK_TICKS]))
        life.looks += 1
        life.blocked += fields[0] == "D"

    def _answers(self, places: Sequence[Place]) -> dict[int, dict[str, float]]:
        found: dict[int, dict[str, float]] = {}
        told: dict[int, tuple[float | None, float]] = {}
        for pid in list(self.lives):
            told[pid] = self._answer(pid, self.lives.pop(pid))
        for place in places:
            parts = [told[pid] for pid in self.families.get(place.pid, ()) if pid in told]
            queued = [part[0] for part in parts if part[0] is not None]
            values = {"process_cpu_wait_ratio": max(queued)} if queued else {}
            found[place.pid] = values | ({"process_io_wait_ratio": max(part[1] for part in parts)} if parts else {})
        return found

    def _answer(self, pid: int, life: Life) -> tuple[float | None, float]:
        """The shares of the time since its life was first looked at: waiting for a CPU (None: not told here), blocked."""
        seconds, fields, queued = self.clock() - life.at, stat(pid, self.proc), self._queued(pid)
        blocked = life.blocked / life.looks
        if seconds > 0 and len(fields) > _BLOCK_TICKS:
            blocked = max(blocked, (int(fields[_BLOCK_TICKS]) - life.blocked_ticks) / self.ticks_per_second / seconds)
        waited = None
        if queued is not None and life.queued_ns is not None and seconds > 0:
            waited = min(1.0, max(0.0, (queued - life.queued_ns) / 1e9 / seconds))
        return waited, min(1.0, blocked)

    def _readers(self, pid: int) -> list[int]:
        """The threads that have read most, by what each read until now; `/proc/TID` answers for a thread too."""
        read = []
        try:
            threads = [int(name) for name in os.listdir(f"{self.proc}/{pid}/task")[:_MANY_THREADS] if int(name) != pid]
            for thread in threads:
                with open(f"{self.proc}/{pid}/task/{thread}/io", "rb", buffering=0) as file:
                    read.append((int(file.read(256).split()[1]), thread))
        except (OSError, ValueError, IndexError):
            return []
        return [thread for count, thread in sorted(read, reverse=True)[:_READERS] if count]

    def _queued(self, pid: int) -> int | None:
        """Nanoseconds in the run queue so far. A kernel that does not count says 0 of everything, also of the time on the CPU."""
        try:
            with open(f"{self.proc}/{pid}/schedstat", "rb", buffering=0) as file:
                spent, queued, _ = (int(word) for word in file.read(256).split())
        except (OSError, ValueError):
            return None
        return queued if spent else None
