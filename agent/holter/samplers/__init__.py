"""Samplers: what the node agent measures beside the training. One file each; a new one is its file and its line in `SAMPLERS`.

A sampler reads; it neither times nor ships. It may raise, hang or crash: `holter.node.sampling` runs each in a thread of its own, switches
off the one that fails, and says so once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from holter.checkpoints.plan import Plan

NODE = 0


@dataclass(frozen=True, kw_only=True)
class Place:
    """A rank on this node: its process and how it names its GPU."""

    pid: int
    local_rank: int
    visible_gpus: str | None = None
    """CUDA_VISIBLE_DEVICES of the rank: indices or UUIDs, in the rank's own order."""
    checkpoints: Plan | None = None
    """Where the run keeps its checkpoints; only its first rank says."""


@dataclass(kw_only=True)
class Sample:
    """What one look found. `values` maps the process id of a rank (`NODE`: the node) to metrics; what could not be read is absent.
    `events` are `(word, process id or NODE, attrs)`."""

    values: dict[int, dict[str, float]] = field(default_factory=dict)
    events: list[tuple[str, int, dict[str, Any]]] = field(default_factory=list)


class Sampler(Protocol):
    """Made once; `sample` is called about every `every_seconds` with the ranks that live. Raises `SamplerAbsent` where there is nothing to
    sample (no GPU in this machine): that is no failure and is not told as one."""

    name: ClassVar[str]
    every_seconds: ClassVar[float]

    def sample(self, places: Sequence[Place]) -> Sample: ...


class SamplerAbsent(Exception):
    """There is nothing here to sample."""


def samplers() -> list[type[Sampler]]:
    """All samplers, imported late: a broken vendor library must not keep the others from working."""
    from holter.samplers.amd import Amd
    from holter.samplers.checkpoints import Checkpoints
    from holter.samplers.host import Host
    from holter.samplers.nvml import Nvml
    from holter.samplers.process import Process
    from holter.samplers.waits import Waits

    return [Process, Waits, Host, Nvml, Amd, Checkpoints]
