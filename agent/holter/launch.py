"""Starts the node agent from a rank: once a node, detached, in a session of its own, without inheriting anything of the training."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

from holter.settings import Settings

LOCK = "agent.lock"
LOG = "agent.log"
_LOG_BYTES = 1024 * 1024
_NEEDED = ("holter", "numpy", "psutil", "pynvml", "zstandard")
_START = "import sys,json,os;c=json.load(os.fdopen(int(sys.argv[1])));sys.path.extend(c['path']);from holter.node import start;start(c)"
# The shell puts the agent into the background and ends at once: the agent is no child of the training, whose own `os.wait` must not see it.
_SHELL = ("/bin/sh", "-c", '"$@" &', "holter")


def launch(settings: Settings, rings: Path) -> bool:
    """Start a node agent for `rings` unless one lives. True if one was started. Raises `OSError` where spawning is forbidden.

    Whoever holds the lock is the agent: the lock is taken here and handed over through the inherited descriptor, so there is no moment
    in which two ranks can both think that none lives.
    """
    lock = os.open(rings / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        _spawn(settings, rings, lock)
        return True
    finally:
        os.close(lock)


def _spawn(settings: Settings, rings: Path, lock: int) -> None:
    read, write = os.pipe()
    # Our own process, held open for the agent: what ends before the agent's first look is told as well as what ends later.
    own = _pidfd()
    try:
        # Through a pipe: a token in an argument list or an environment is readable by others.
        words = {"settings": settings.as_dict(), "rings": str(rings), "lock": lock, "path": _paths(), "processes": {os.getpid(): own}}
        os.write(write, json.dumps(words).encode())
        os.close(write)
        write = -1
        log = _open_log(rings / LOG)
        try:
            subprocess.run(
                [*_SHELL, sys.executable or "python3", "-I", "-c", _START, str(read)],
                check=True,
                timeout=5,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                close_fds=True,
                pass_fds=(lock, read, *([own] if own is not None else [])),
                start_new_session=True,
                cwd="/",
                env=_environment(),
            )
        finally:
            os.close(log)
    except subprocess.SubprocessError as error:
        raise OSError(f"the node agent could not be started: {error}") from error
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)
        if own is not None:
            os.close(own)


def _open_log(path: Path) -> int:
    """The agent's log, begun anew when it has become long: it lies in memory."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    if os.fstat(log).st_size > _LOG_BYTES:
        os.ftruncate(log, 0)
    return log


def _pidfd() -> int | None:
    try:
        return os.pidfd_open(os.getpid())
    except (OSError, AttributeError):
        return None


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "HOLTER_TOKEN"}
    # One thread: numpy's own pool would start a thread for each core of a training node.
    return {**kept, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def _paths() -> list[str]:
    """Folders that hold what the agent imports. The agent runs isolated (-I): a `queue.py` beside the training script must not reach it."""
    found: list[str] = []
    for name in _NEEDED:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            origin = Path(spec.origin)
            folder = str(origin.parent.parent if spec.submodule_search_locations else origin.parent)
            if folder not in found:
                found.append(folder)
    return found
