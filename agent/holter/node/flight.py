"""What PyTorch's flight recorder left in a file: how far a rank came in the collectives of each process group, in a few hundred bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from typing import Any

from holter.node.plain import MAX_BYTES, NotPlain, read

MAX_GROUPS = 32
MAX_RANKS = 4_096
MAX_TEXT = 120
MAX_SIZES = 4
MAX_DIMENSIONS = 8


def load(path: str, since: float) -> dict[str, Any] | None:
    """The summary of the dump at `path` with the time of its writing; None if none was written after `since` (unix seconds). Raises `NotPlain`,
    `OSError`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if found.st_mtime <= since:
            return None
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_BYTES:
            raise NotPlain(f"{path} is no file, or too large for a dump")
        return summary(read(file.read(MAX_BYTES + 1))) | {"written": found.st_mtime}


def summary(dump: Any) -> dict[str, Any]:
    """`{"version", "groups": [{"group", "name", "ranks", "enqueued", "completed", "op", "state", "sizes", "dtype", "where"}]}`: of each process
    group the newest collective that was enqueued, the newest that was completed, and the first that was not. Raises `NotPlain`."""
    if not isinstance(dump, dict) or not isinstance(dump.get("entries"), list | None):
        raise NotPlain("no dump of the flight recorder")
    by_group: dict[str, list[dict[str, Any]]] = {}
    for entry in dump.get("entries") or []:
        if isinstance(entry, dict) and not entry.get("is_p2p"):
            by_group.setdefault(_text(_part(entry.get("process_group"), 0)), []).append(entry)
    done = _completed(dump.get("pg_status"))
    members = dump.get("pg_config")
    groups = [_group(name, entries, done, members if isinstance(members, dict) else {}) for name, entries in by_group.items()]
    return {"version": _text(dump.get("version")), "groups": groups[:MAX_GROUPS]}


def _group(name: str, entries: list[dict[str, Any]], done: Mapping[int, int], members: Mapping[Any, Any]) -> dict[str, Any]:
    numbered = [(seq, entry) for entry in entries if (seq := _number(entry.get("collective_seq_id"))) is not None]
    enqueued = max((seq for seq, _ in numbered), default=0)
    completed = max((done.get(_number(entry.get("pg_id")) or 0, -1) for entry in entries), default=-1)
    # The status is not enough: it is written by several threads, and the collective before the last may write it last.
    completed = max([completed, *(seq for seq, entry in numbered if _is_done(entry))])
    pending = min(((seq, at) for at, (seq, _) in enumerate(numbered) if seq > completed), default=None)
    config = members.get(name)
    told: dict[str, Any] = {
        "group": name,
        "name": _text(_part(entries[-1].get("process_group"), 1)),
        "ranks": _ranks(config.get("ranks")) if isinstance(config, dict) else [],
        "enqueued": enqueued,
        "completed": completed,
    }
    return told | (_pending(*numbered[pending[1]]) if pending is not None else {})


def _is_done(entry: Mapping[str, Any]) -> bool:
    """gloo's entries stay "scheduled" for ever and are retired when they are done; an entry that NCCL retired and did not complete timed out."""
    return entry.get("state") == "completed" or (bool(entry.get("retired")) and _text(entry.get("profiling_name")).startswith("gloo:"))


def _pending(seq: int, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The collective that this rank waits in."""
    frames = entry.get("frames")
    return {
        "pending": seq,
        "op": _text(entry.get("profiling_name")).rpartition(":")[2],
        "state": _text(entry.get("state")),
        "sizes": _sizes(entry.get("input_sizes")),
        "dtype": _text(_part(entry.get("input_dtypes"), 0)),
        "where": _where(frames if isinstance(frames, list) else []),
    }


def _completed(status: Any) -> dict[int, int]:
    """By the number of the group (`pg_id`), which is this rank's own: the last collective that was completed."""
    found = {}
    for key, told in status.items() if isinstance(status, dict) else ():
        number, last = _number(key), _number(told.get("last_completed_collective")) if isinstance(told, dict) else None
        if number is not None and last is not None:
            found[number] = last
    return found


def _where(frames: Iterable[Any]) -> str:
    """The innermost frame that is not of torch.distributed itself."""
    for frame in list(frames)[:64]:
        if isinstance(frame, dict) and "torch/distributed/" not in str(frame.get("filename")):
            return f"{_text(frame.get('name'))} ({_text(frame.get('filename')).rpartition('/')[2]}:{_number(frame.get('line'))})"
    return ""


def _ranks(text: Any) -> list[int]:
    """`"[0, 1, 2]"`, as the dump writes it; empty for a default group, which has all."""
    words = text.strip("[] ").split(",") if isinstance(text, str) else []
    return [int(word) for word in words[:MAX_RANKS] if word.strip().isdecimal()]


def _sizes(sizes: Any) -> list[list[int]]:
    shapes = [size for size in (sizes if isinstance(sizes, list) else [])[:MAX_SIZES] if isinstance(size, list | tuple)]
    return [[number for each in shape[:MAX_DIMENSIONS] if (number := _number(each)) is not None] for shape in shapes]


def _part(value: Any, index: int) -> Any:
    return value[index] if isinstance(value, list | tuple) and len(value) > index else None


def _number(value: Any) -> int | None:
    """Whole, and small enough for every reader; JSON dumps write numbers as text."""
    if isinstance(value, str) and value.lstrip("-").isdecimal() and len(value) < 20:
        value = int(value)
    return value if type(value) is int and abs(value) < 2**62 else None


def _text(value: Any) -> str:
    return value[:MAX_TEXT] if isinstance(value, str) else ""
