"""The demo's processes: started in sessions of their own, and all of them gone when the demo ends, however it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

GRACE_SECONDS = 8.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def python(module: str, *arguments: str, environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start `python -m module …`; what it prints goes to `log`."""
    command: Sequence[str] = [sys.executable, "-m", module, *arguments]
    with log.open("ab") as output:
        return subprocess.Popen(
            command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask, wait, insist."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def stop_all_that_use(folder: Path) -> None:
    """End what still has a file of `folder` open: the node agent is nobody's child, by design, and would linger to ship its spool."""
    mine = users_of(folder)
    for process in mine:
        _signal(process, signal.SIGTERM)
    _, stubborn = psutil.wait_procs(mine, GRACE_SECONDS)
    for process in stubborn:
        _signal(process, signal.SIGKILL)


def users_of(folder: Path) -> list[psutil.Process]:
    """The other processes that have a file of `folder` open."""
    return [process for process in psutil.process_iter() if process.pid != os.getpid() and _uses(process.pid, folder)]


def _uses(pid: int, folder: Path) -> bool:
    """By its open files: a node agent's environment and arguments say nothing of its folder."""
    try:
        return any(os.readlink(link).startswith(f"{folder}/") for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it ended meanwhile, or is not ours to look at
        return False


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
