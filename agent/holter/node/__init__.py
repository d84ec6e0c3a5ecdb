"""The node agent: one process a node that reads all rings, watches the ranks and ships what it sees."""

from __future__ import annotations

import fcntl
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from holter.launch import LOCK
from holter.settings import Settings


def start(words: dict[str, Any]) -> None:
    """The life of an agent that a rank started; `words` came through a pipe (see `holter.launch`)."""
    processes = {int(pid): descriptor for pid, descriptor in words["processes"].items() if descriptor is not None}
    serve(Settings(**words["settings"]), Path(words["rings"]), int(words["lock"]), processes)


def serve(settings: Settings, rings: Path, lock: int, processes: dict[int, int] | None = None, *, is_service: bool = False) -> None:
    """Run one agent that holds `lock`, and again for as long as a ring appeared at the moment in which it let go. `processes` maps
    process ids to descriptors of theirs that were handed over."""
    from holter.node.agent import NodeAgent

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    while True:
        agent = NodeAgent(settings, rings, processes or {}, is_service=is_service)
        agent.run()
        fcntl.flock(lock, fcntl.LOCK_UN)
        if agent.is_stopping:
            return  # told to end: what is left in the rings waits for whom the next rank starts
        # A rank that came between our last look and this line saw the lock held and started nobody.
        if not any(rings.glob("*.ring")) or not _lock(lock):
            return
        time.sleep(0.2)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_lock(rings: Path) -> int | None:
    """The lock of `rings`, taken; None when another agent holds it."""
    descriptor = os.open(rings / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if _lock(descriptor):
        return descriptor
    os.close(descriptor)
    return None
