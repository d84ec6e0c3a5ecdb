"""Where the ranks of this node stand, in Python frames: by py-spy where it may look, else by the signal the operator allowed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

SECONDS = 10.0
"""For one rank."""
ALL_SECONDS = 40.0
"""For all of a node; ranks beyond it are told by the kernel's word alone."""
MAX_STACK = 8_000


def stacks_of(pids: Mapping[int, int], dumps: Mapping[int, tuple[int, Path]] | None = None) -> list[dict[str, object]]:
    """The stacks of ranks (`{rank: pid}`), equal ones together: `[{"ranks": [...], "stack": "..."}]`, the smallest group first, for the
    rank that stands elsewhere is the one to look at. `dumps` gives a rank's signal and file for those that allowed one."""
    groups: dict[str, list[int]] = {}
    until = time.monotonic() + ALL_SECONDS
    for rank, pid in pids.items():
        left = until - time.monotonic()
        text = by_py_spy(pid, min(SECONDS, left)) if left > 0 else ""
        if not text and left > 0 and dumps and rank in dumps:
            text = by_signal(pid, *dumps[rank])
        groups.setdefault(text or by_kernel(pid), []).append(rank)
    return [{"ranks": ranks, "stack": stack} for stack, ranks in sorted(groups.items(), key=lambda item: (len(item[1]), item[1]))]


def by_py_spy(pid: int, seconds: float = SECONDS) -> str:
    """The main thread's frames; empty where py-spy is not there or may not look."""
    program = shutil.which("py-spy", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, "dump", "--nonblocking", "--pid", str(pid)], capture_output=True, text=True, timeout=seconds, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return main_thread(done.stdout) if done.returncode == 0 else ""


def main_thread(text: str) -> str:
    """py-spy's text without what differs between equal ranks: process ids, thread ids, whether a thread was just running."""
    frames: list[str] = []
    is_main = False
    for line in text.splitlines():
        if line.startswith("Thread "):
            is_main = '"MainThread"' in line
        elif is_main and line.strip():
            frames.append(line.strip())
    return "\n".join(frames)[:MAX_STACK]


def by_signal(pid: int, number: int, path: Path) -> str:
    """What `faulthandler` writes when it gets the signal that the operator named in HOLTER_STACK_SIGNAL."""
    if not is_caught(pid, number):
        return ""  # registered once and no longer, as after an exec: the signal would end the process
    with contextlib.suppress(OSError):
        before = path.stat().st_size
        os.kill(pid, number)
        until = time.monotonic() + 2.0
        while path.stat().st_size == before and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.05)
        with path.open(encoding="utf-8", errors="replace") as file:
            file.seek(before)
            return _most_recent(file.read())[:MAX_STACK]
    return ""


def is_caught(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def _most_recent(text: str) -> str:
    """faulthandler's thread that got the signal, without its id."""
    kept = text.partition("Current thread")[2] or text
    frames = [line.strip() for line in kept.splitlines() if line.strip().startswith("File ")]
    return "\n".join(frames)


def by_kernel(pid: int) -> str:
    """Where nothing else may look: the state and the kernel function that the main thread sleeps in."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "the process is gone"
    channel = ""
    with contextlib.suppress(OSError):
        channel = Path(f"/proc/{pid}/wchan").read_text().strip("\0\n0")
    return f"state {state}" + (f", in {channel}" if channel else "")


def signal_number(name: str) -> int | None:
    """SIGUSR1, SIGUSR2 or a real-time signal by name; None for what cannot be used."""
    try:
        number = signal.Signals[name.strip().upper()]
    except KeyError:
        return None
    return int(number) if number in (signal.SIGUSR1, signal.SIGUSR2) or number >= signal.SIGRTMIN else None


def ask_flight_recorder(pipe: str) -> bool:
    """Ask PyTorch's NCCL flight recorder for a dump through its pipe (TORCH_NCCL_DEBUG_INFO_PIPE_FILE); False when nobody listens."""
    try:
        descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        os.write(descriptor, b"1\n")
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
