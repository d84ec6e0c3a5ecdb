"""The folder that a run keeps its checkpoints in (`HOLTER_CHECKPOINTS`): which there are, which are whole, told whenever that changes."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import psutil

from holter.identity import rank_of
from holter.samplers import Place, Sample

VARIABLE = "HOLTER_CHECKPOINTS"
KEPT = 64
"""Newest checkpoints that are told; a folder may hold thousands."""
MAX_FILES = 100_000
_SHARD = re.compile(r"^(?P<stem>.*)-(?P<number>\d+)-of-(?P<count>\d+)(?P<suffix>\..*)?$")
_MAX_HEADER, _MAX_INDEX = 100 << 20, 64 << 20


@dataclass(slots=True)
class Look:
    """How one checkpoint looked, and since when it has looked so."""

    shape: tuple[int, int, int]
    """Files, bytes, newest modification in nanoseconds."""
    since: float
    state: str = "writing"
    """`writing`, `complete`, or what is wrong with it."""


@dataclass(kw_only=True)
class Checkpoints:
    """Only the run's first rank looks, since the folder is usually shared. It opens headers and indices, never the tensors."""

    name: ClassVar[str] = "checkpoints"
    every_seconds: ClassVar[float] = 30.0
    patience_seconds: float = 600.0
    """A checkpoint that is not whole and has not changed for this long is not being written any more."""
    clock: Callable[[], float] = time.monotonic
    looks: dict[str, dict[str, Look]] = field(init=False, default_factory=dict)
    told: dict[str, list[list[Any]]] = field(init=False, default_factory=dict)

    def sample(self, places: Sequence[Place]) -> Sample:
        watched = [(place.pid, folder) for place in places if (folder := _folder(place))]
        found = Sample()
        for pid, folder in watched:
            items = self._look(Path(folder))
            # The first look is always told: an agent that starts anew may find empty what its predecessor found full.
            if items != self.told.get(folder):
                self.told[folder] = items
                found.events.append(("checkpoint_files", pid, {"folder": folder, "items": items}))
        return found

    def _look(self, folder: Path) -> list[list[Any]]:
        """`[name, step, bytes, state]` of the newest, oldest first. A folder that is not there holds none. Raises `OSError`."""
        known, now = self.looks.setdefault(str(folder), {}), self.clock()
        there: dict[str, Look] = {}
        for path in sorted(_checkpoints(folder), key=lambda path: (_step(path.name), path.name))[-KEPT:]:
            try:
                there[path.name] = self._judged(path, known.get(path.name), now)
            except FileNotFoundError:
                # Deleted under the look; the next one says so.
                continue
        self.looks[str(folder)] = there
        return [[name, _step(name), look.shape[1], look.state] for name, look in there.items()]

    def _judged(self, path: Path, before: Look | None, now: float) -> Look:
        files = _files(path)
        stats = [file.stat() for file in files]
        shape = (len(files), sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0))
        if before is None or before.shape != shape:
            return Look(shape, now)
        if before.state == "writing":
            wrong = problem(files)
            if not wrong:
                before.state = "complete"
            elif now - before.since >= self.patience_seconds:
                before.state = wrong
        return before


def problem(files: Sequence[Path]) -> str:
    """What a checkpoint of these files lacks; empty where it is whole."""
    if not any(file.stat().st_size for file in files):
        return "it is empty"
    names = {file.name for file in files}
    for file in files:
        wrong = _partial(file) or _unreadable(file) or _lacking(file, names)
        if wrong:
            return wrong
    if any(name.endswith(".distcp") for name in names) and ".metadata" not in names:
        return ".metadata is missing"
    return ""


def _partial(file: Path) -> str:
    return f"{file.name} is a partial file" if file.suffix in (".tmp", ".part", ".partial", ".incomplete") else ""


def _unreadable(file: Path) -> str:
    """A safetensors file tells in its header how long it must be."""
    if file.suffix != ".safetensors":
        return ""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER):
            return f"{file.name} is cut within its header"
        try:
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            expected = 8 + length + max(ends, default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return f"{file.name} has a header that cannot be read"
    return "" if size == expected else f"{file.name} has {size:,} bytes of {expected:,}"


def _lacking(file: Path, names: set[str]) -> str:
    shard = _SHARD.match(file.name)
    needed: set[str] = set()
    if shard and int(shard["count"]) <= MAX_FILES:
        first = 1 if int(shard["number"]) else 0
        width, count = len(shard["number"]), int(shard["count"])
        if f"{shard['stem']}-{'0' * width}-of-{shard['count']}{shard['suffix'] or ''}" in names:
            first = 0
        start = f"{shard['stem']}-"
        needed = {f"{start}{number:0{width}d}-of-{shard['count']}{shard['suffix'] or ''}" for number in range(first, first + count)}
    elif file.name.endswith(".index.json") and file.stat().st_size <= _MAX_INDEX:
        try:
            needed = {str(name).rsplit("/", 1)[-1] for name in json.loads(file.read_bytes())["weight_map"].values()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{file.name} cannot be read"
    missing = sorted(needed - names)
    return f"{len(missing)} of {len(needed)} shards are missing, first {missing[0]}" if missing else ""


def _checkpoints(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if _step(path.name) >= 0 and not path.name.startswith(".")]
    except FileNotFoundError:
        return []


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = []
    for root, _, names in os.walk(path):
        files += [Path(root, name) for name in names]
        if len(files) > MAX_FILES:
            raise OSError(f"{path} holds more than {MAX_FILES} files")
    return files


def _step(name: str) -> int:
    numbers = re.findall(r"\d+", name)
    return int(numbers[-1][:18]) if numbers else -1


def _folder(place: Place) -> str:
    """The folder that this rank's environment names; empty for all but the first rank of a run."""
    try:
        environment: Mapping[str, str] = psutil.Process(place.pid).environ()
    except psutil.Error:
        return ""
    return environment.get(VARIABLE, "") if rank_of(environment, default=place.local_rank) == 0 else ""
