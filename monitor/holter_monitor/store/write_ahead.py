"""SQLite's write-ahead log. It is emptied when nobody reads what stands in it: who reads on for ever lets it grow."""

from __future__ import annotations

from pathlib import Path

SHRINK_BYTES = 64 << 20
"""What it is cut to again, after somebody's long reading."""
PROBLEM_BYTES = 256 << 20


def beside(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def problem(path: Path) -> str | None:
    """What is wrong with that of the database at `path`."""
    try:
        waiting = beside(path).stat().st_size
    except OSError:
        return None
    if waiting <= PROBLEM_BYTES:
        return None
    return f"somebody has been reading {path.name} for long: its write-ahead log has grown to {waiting >> 20} MiB"
