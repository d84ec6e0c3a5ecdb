"""A consistent copy of all that a running collector keeps, from which another can be started.

The log is copied last, and nothing is trimmed from it meanwhile: whatever point the two stores' copies were taken at, the log's copy still has what follows
it, and the consumers of the restored collector go on from there.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from holter_monitor.consumers.janitor import Janitor
from holter_monitor.errors import DiskFull, Unavailable
from holter_monitor.settings import Settings
from holter_monitor.store import control
from holter_monitor.store.ports import FrameLog, SampleStore

FOLDER = "backups"
UNFINISHED = "unfinished"
STORES = ("frames.", "samples.", "control.")


@dataclass(frozen=True, slots=True)
class Backup:
    """Where it lies, and what is in it."""

    folder: Path
    files: dict[str, int]
    """Name → bytes."""


def back_up(settings: Settings, log: FrameLog, samples: SampleStore, janitor: Janitor) -> Backup:
    """Copy the stores into a folder of their own under `backups`; it has its name once it is whole and on the disk. Raises `DiskFull`, `Unavailable`."""
    unfinished = settings.data / FOLDER / UNFINISHED
    try:
        with janitor.resting():  # which lets in one at a time
            _check_room(settings)
            shutil.rmtree(unfinished, ignore_errors=True)  # a collector that was killed in the middle left it
            unfinished.mkdir(parents=True, mode=0o700)
            if settings.db is None:
                control.backup(settings.data / "control.sqlite", unfinished / "control.sqlite")
            samples.copy_to(unfinished)
            log.copy_to(unfinished)
            files = {path.name: _sync(path) for path in sorted(unfinished.iterdir())}
            folder = unfinished.with_name(time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
            unfinished.rename(folder)
            _sync(folder.parent)
    except (OSError, sqlite3.Error) as error:
        raise Unavailable(f"the backup cannot be made: {error}", retry_after=5) from error
    return Backup(folder, files)


def _check_room(settings: Settings) -> None:
    needed = sum(path.stat().st_size for path in settings.data.iterdir() if path.is_file() and path.name.startswith(STORES))
    free = shutil.disk_usage(settings.data).free
    if free < needed + settings.limits.free_disk_bytes:
        raise DiskFull(f"a backup takes {needed >> 20} MiB, and {free >> 20} MiB are free")


def _sync(path: Path) -> int:
    """Until the disk has it; how many bytes it is."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
