"""Whether a store's files are still those that were opened. An engine goes on writing into a file that has no name any more, and all that it took is gone
with the process."""

from __future__ import annotations

from pathlib import Path

from holter_monitor.errors import Unavailable


class Presence:
    def __init__(self, *paths: Path) -> None:
        self._inodes = {path: _inode(path) for path in paths}

    def problem(self) -> str | None:
        for path, inode in self._inodes.items():
            if _inode(path) != inode:
                return f"{path} was removed or replaced under the collector: move it back, or restart"
        return None

    def check(self) -> None:
        problem = self.problem()
        if problem:
            raise Unavailable(problem, retry_after=30)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None
