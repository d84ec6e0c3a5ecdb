"""Where a rank sits: one mesh, whatever the framework calls it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DATA_AXES = ("dp", "edp", "ddp", "fsdp", "data", "replica", "replicate", "shard", "batch")
STAGE_AXES = ("pp", "pipe", "pipeline", "stage")


@dataclass(frozen=True, slots=True)
class Mesh:
    """`place`: axis -> this rank's coordinate; `sizes`: axis -> ranks along it; `source` says where it was read."""

    place: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    source: str = "none"

    @property
    def is_guessed(self) -> bool:
        """Nobody said what the ranks are to each other: they may be replicas, or hold shards of a framework that we do not know."""
        return self.source.startswith("guessed")

    @property
    def compared(self) -> list[str]:
        """Axes along which ranks hold the same tensors, or parts of the same tensors."""
        return [axis for axis, size in self.sizes.items() if size > 1 and axis not in STAGE_AXES]

    @property
    def data(self) -> list[str]:
        return [axis for axis in self.compared if is_data(axis)]

    @property
    def model(self) -> list[str]:
        return [axis for axis in self.compared if not is_data(axis)]


def is_data(axis: str) -> bool:
    """`dp`, `dp_shard`, `dp_replicate`, `fsdp`, `data_parallel` …"""
    return axis.lower().split("_")[0] in DATA_AXES


REPLICATING = ("DistributedDataParallel", "FullyShardedDataParallel", "DeepSpeedEngine")
"""Wrappers that say by their name that ranks are data-parallel."""


def mesh_of(given: Any, params: Mapping[str, Any], known: tuple[Mapping[str, int], Mapping[str, int]] = ({}, {})) -> Mesh:
    """The mesh from what the user gave, else from DTensor parameters, Megatron's state, what `holter.init` was told, or plain data parallel.

    `given`: a torch `DeviceMesh`, `{"dp": (0, 4), "tp": (1, 2)}` or None. Raises `TypeError` for anything else.
    """
    if given is not None:
        if hasattr(given, "mesh_dim_names"):
            return _device_mesh(given, "mesh")
        if isinstance(given, Mapping) and all(isinstance(value, tuple | list) and len(value) == 2 for value in given.values()):
            places = {str(axis): int(value[0]) for axis, value in given.items()}
            return Mesh(places, {str(axis): int(value[1]) for axis, value in given.items()}, "mesh")
        raise TypeError('mesh is a torch DeviceMesh or {"dp": (0, 4), "tp": (1, 2)}: coordinate and size for each axis')
    meshes = [param.device_mesh for param in params.values() if hasattr(param, "device_mesh")]
    own = max(meshes, key=lambda mesh: mesh.ndim, default=None)
    place, sizes = known
    if sizes:
        return Mesh(dict(place), dict(sizes), "holter.init")
    if own is not None and _world() <= own.size():
        return _device_mesh(own, "dtensor")
    return _megatron() or (_device_mesh(own, "dtensor") if own is not None else _data_parallel())


def _device_mesh(mesh: Any, source: str) -> Mesh:
    names = axis_names(mesh)
    place = mesh.get_coordinate()
    if place is None:
        return Mesh(source=source)
    return Mesh(dict(zip(names, place, strict=True)), dict(zip(names, mesh.shape, strict=True)), source)


def axis_names(mesh: Any) -> tuple[str, ...]:
    """A DeviceMesh's own names; a nameless mesh of one dimension is the data-parallel one of `fully_shard(model)`."""
    return tuple(mesh.mesh_dim_names or ("dp" if mesh.ndim == 1 else f"axis{number}" for number in range(mesh.ndim)))


def _megatron() -> Mesh | None:
    """Megatron-LM's groups, where it is loaded and initialised. Written from its source (d98e8a64), tested against a stand-in."""
    state = sys.modules.get("megatron.core.parallel_state")
    if state is None or not state.model_parallel_is_initialized():
        return None
    axes = {"tp": "tensor_model_parallel", "pp": "pipeline_model_parallel", "dp": "data_parallel", "cp": "context_parallel"}
    place = {axis: int(getattr(state, f"get_{words}_rank")()) for axis, words in axes.items()}
    return Mesh(place, {axis: int(getattr(state, f"get_{words}_world_size")()) for axis, words in axes.items()}, "megatron")


def _world() -> int:
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return 1
    return int(distributed.get_world_size())


def _data_parallel() -> Mesh:
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or _world() == 1:
        return Mesh()
    return Mesh({"dp": int(distributed.get_rank())}, {"dp": _world()}, "guessed: data parallel")
