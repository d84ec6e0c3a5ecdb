"""A rank's own process and the dataloader workers it started."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import psutil

from holter.samplers import Place, Sample
from holter.samplers.trees import trees


class Process:
    """Memory of the tree is the sum of resident pages less those shared, plus the shared ones once: forked workers share most of theirs."""

    name: ClassVar[str] = "process"
    every_seconds: ClassVar[float] = 5.0

    def sample(self, places: Sequence[Place]) -> Sample:
        found: dict[int, dict[str, float]] = {}
        families = trees(place.pid for place in places)
        for place in places:
            try:
                found[place.pid] = _read(psutil.Process(place.pid), families[place.pid][1:])
            except psutil.Error:
                # It ended between two looks; its end is told by others.
                continue
        return Sample(values=found)


def _read(process: psutil.Process, children: Sequence[int]) -> dict[str, float]:
    memory = process.memory_info()
    own, shared = memory.rss - memory.shared, memory.shared
    for child in children:
        try:
            part = psutil.Process(child).memory_info()
        except psutil.Error:
            continue
        own += part.rss - part.shared
        shared = max(shared, part.shared)
    found = {
        "process_memory_rss_bytes": own + shared,
        "process_memory_shared_bytes": shared,
        "process_threads": process.num_threads(),
        "process_children": len(children),
    }
    try:
        found["process_open_files"] = process.num_fds()
    except psutil.Error:
        pass
    return {name: float(value) for name, value in found.items()}
