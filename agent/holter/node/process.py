"""Whether a rank's process lives, and how it ended when it does not: exit status, signal, the kernel's own words about memory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holter.ring import State

_PIDFD_GET_INFO = 0xC040FF0B
"""`_IOWR(0xFF, 11, struct pidfd_info)` with the first version's 64 bytes (Linux 6.13, include/uapi/linux/pidfd.h)."""
_INFO = struct.Struct("<QQ11Ii")
_INFO_EXIT = 1 << 3
_CGROUPS = Path("/sys/fs/cgroup")
_ASKED_TO_END = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU})
"""Signals by which schedulers and people end a job; any other is an accident."""


def is_alive(pid: int, began: int) -> bool:
    """Whether the process that was `pid` at its start still runs. A zombie does not; a new process of the same number is another."""
    fields = _stat(pid)
    return bool(fields) and fields[0] not in ("Z", "X") and (began == 0 or int(fields[19]) == began)


def is_stopped(pid: int) -> bool:
    """Whether the system has stopped it (SIGSTOP, a debugger): state T or t."""
    stat = _stat(pid)
    return bool(stat) and stat[0] in ("T", "t")


def _stat(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


class ProcessWatch:
    """One rank's process, held by a descriptor from the first look on, so that its end can be read after it is gone."""

    def __init__(self, pid: int, began: int, pidfd: int | None = None) -> None:
        self.pid, self.began = pid, began
        self._pidfd = pidfd
        with contextlib.suppress(OSError, AttributeError):
            if pidfd is None and is_alive(pid, began):
                self._pidfd = os.pidfd_open(pid)
        self._cgroup = cgroup_of(pid)
        self._oom_kills = oom_kills(self._cgroup)

    @property
    def is_alive(self) -> bool:
        return is_alive(self.pid, self.began)

    def wait_status(self) -> int | None:
        """The status as `os.waitpid` would give it; None where neither a zombie nor the kernel (6.15 and later) tells it."""
        if self._pidfd is not None:
            buffer = bytearray(_INFO.pack(_INFO_EXIT, *([0] * 13)).ljust(64, b"\0"))
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._pidfd, _PIDFD_GET_INFO, buffer)
                found = _INFO.unpack_from(buffer)
                if found[0] & _INFO_EXIT:
                    return int(found[-1])
        fields = _stat(self.pid)
        if len(fields) > 49 and fields[0] == "Z" and int(fields[19]) == self.began:
            return int(fields[49])
        return None

    def memory_evidence(self) -> str:
        """What the kernel says about an end for want of memory; empty when it says nothing or may not be asked."""
        killed = oom_kills(self._cgroup)
        if killed is not None and self._oom_kills is not None and killed > self._oom_kills:
            return f"out of memory: the kernel's count of killed processes in {self._cgroup} went from {self._oom_kills} to {killed}"
        return kernel_words(self.pid)

    def close(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


@dataclass(frozen=True)
class Ending:
    """The event that tells how a rank ended; `word` is None when the rank told it itself."""

    word: str | None
    attrs: dict[str, Any]


def ending_of(state: int, status: int | None, memory_evidence: str) -> Ending:
    """How a rank ended, from what it wrote last, its wait status and the kernel's words."""
    if state in (State.FINISHED, State.FAILED):
        return Ending(None, {})
    number = None if status is None else status & 0x7F
    code = None if status is None else status >> 8
    if number:
        return _ended_by_signal(number, memory_evidence)
    if state == State.EXITED:
        if code:
            return Ending("rank_failed", {"type": "SystemExit", "message": f"exit status {code}"})
        return Ending("rank_finished", {"status": "exited"})
    if memory_evidence:
        return Ending("rank_lost", {"evidence": memory_evidence})
    if code is not None:
        return Ending("rank_lost", {"evidence": f"the process left at once (os._exit) with status {code}", "status": code})
    return Ending("rank_lost", {"evidence": "the process is gone without a word; its exit status could not be read"})


def _ended_by_signal(number: int, memory_evidence: str) -> Ending:
    name = signal.Signals(number).name if number in signal.Signals.__members__.values() else f"signal {number}"
    if number in _ASKED_TO_END:
        return Ending("rank_terminated", {"signal": name})
    if number == signal.SIGKILL and memory_evidence:
        return Ending("rank_lost", {"evidence": memory_evidence, "signal": name})
    return Ending("rank_lost", {"evidence": f"killed by {name}", "signal": name})


def cgroup_of(pid: int) -> Path | None:
    """The cgroup folder of a process (version 2, or version 1's memory hierarchy)."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            return _CGROUPS / path.lstrip("/")
        if "memory" in controllers.split(","):
            return _CGROUPS / "memory" / path.lstrip("/")
    return None


def oom_kills(cgroup: Path | None) -> int | None:
    """How many processes of a cgroup the kernel killed for want of memory; None where it cannot be read."""
    for name in ("memory.events", "memory.oom_control"):
        try:
            text = (cgroup / name).read_text() if cgroup is not None else ""
        except OSError:
            continue
        for line in text.splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill" and value.isdecimal():
                return int(value)
    return None


def kernel_words(pid: int, log: str = "/dev/kmsg") -> str:
    """The kernel's own line about having killed `pid` for want of memory, where this user may read its log."""
    with contextlib.suppress(OSError):
        descriptor = os.open(log, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _find_kill(descriptor, f"Killed process {pid} ".encode())
        finally:
            os.close(descriptor)
    return ""


def _find_kill(descriptor: int, words: bytes) -> str:
    for _ in range(20_000):
        try:
            record = os.read(descriptor, 8192)
        except BlockingIOError:
            return ""
        except OSError:
            continue  # a record was overwritten while we read: the next read stands on the next one
        if not record:
            return ""
        if words in record:
            return record.decode(errors="replace").partition(";")[2].splitlines()[0]
    return ""
