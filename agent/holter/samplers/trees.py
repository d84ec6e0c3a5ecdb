"""Which processes belong to a rank: its own and all that it started, such as dataloader workers."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")


def trees(pids: Iterable[int], proc: Path = _PROC) -> dict[int, list[int]]:
    """Each process with its descendants, itself first; gone ones have an empty list. One look at the node for all ranks: asking for each
    rank's children apart reads every process of the node once a rank. Where there is no `/proc`, the process alone."""
    if not proc.is_dir():
        return {pid: [pid] for pid in pids}
    children: dict[int, list[int]] = {}
    for name in os.listdir(proc):
        if name.isdecimal() and (fields := stat(int(name), proc)):
            children.setdefault(int(fields[1]), []).append(int(name))
            children.setdefault(int(name), [])
    return {pid: _below(pid, children) if pid in children else [] for pid in pids}


def _below(pid: int, children: dict[int, list[int]]) -> list[int]:
    found, seen = [pid], {pid}
    for each in found:  # grows while it is walked
        new = [child for child in children.get(each, ()) if child not in seen]  # a number that was taken again in mid-look
        seen.update(new)
        found += new
    return found


def stat(pid: int, proc: Path = _PROC) -> list[str]:
    """The fields of `/proc/PID/stat` from the third on (state, parent, …); empty where the process is gone."""
    try:
        with open(f"{proc}/{pid}/stat", "rb", buffering=0) as file:
            return file.read(4096).rpartition(b")")[2].decode("ascii", "replace").split()
    except OSError:
        return []
