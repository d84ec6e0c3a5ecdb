"""A checkpoint folder as tensors and their parts: which files belong together, told from their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from holter_monitor.checkpoints import inert
from holter_monitor.checkpoints.arrays import Array, named, safetensors, torch_file
from holter_monitor.checkpoints.errors import CheckpointError

MAX_FILES = 100_000
_OPTIMIZER = re.compile(r"optim|exp_avg|momentum|rng_state|lr_scheduler|rerun_state", re.I)


@dataclass(frozen=True, slots=True)
class Part:
    """What one rank, or one chunk of the global tensor, holds. `place` is its coordinate along the axis."""

    place: int
    array: Array


@dataclass(slots=True)
class StoredTensor:
    """`kind`: "parts" of different ranks, of which only the name says whether they are shards or copies; "shards"; or "whole"."""

    name: str
    kind: str
    parts: list[Part] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    path: Path
    format: str
    tensors: list[StoredTensor]
    step: int = 0


def read(path: Path) -> Checkpoint:
    """Raises `CheckpointError`: no such folder, nothing known in it, or a file that cannot be read."""
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder")
    folder = path if path.is_dir() else path.parent
    files = [entry for entry, _ in zip(sorted(path.rglob("*") if path.is_dir() else [path]), range(MAX_FILES), strict=False)]
    for reader in (_dcp, _megatron, _neox, _nanotron, _whole):
        found = reader(folder, files)
        if found is not None and found.tensors:
            return found
    raise CheckpointError(
        f"{path}: no checkpoint that can be compared; known are torch DCP (.metadata), Megatron-LM and DeepSpeed (mp_rank_XX), GPT-NeoX "
        "(layer_XX-model_XX-model_states.pt), nanotron (…_tp-rank-0-of-2.safetensors) and safetensors"
    )


def _grouped(folder: Path, format_: str, loaded: Iterator[tuple[int, str, dict[str, Array]]], *, kind: str) -> Checkpoint:
    """Arrays of the same name in the files of different ranks become the parts of one tensor. `loaded` gives (rank, prefix, arrays)."""
    tensors: dict[str, StoredTensor] = {}
    for rank, prefix, arrays in loaded:
        for name, array in arrays.items():
            full = f"{prefix}{name}"
            if array.shape and not _OPTIMIZER.search(full):
                tensors.setdefault(full, StoredTensor(full, kind)).parts.append(Part(rank, array))
    return Checkpoint(folder, format_, list(tensors.values()))


def _megatron(folder: Path, files: list[Path]) -> Checkpoint | None:
    """`mp_rank_00/…pt`, `mp_rank_00_001/…pt` (second number: pipeline stage) and DeepSpeed's `mp_rank_00_model_states.pt`."""
    found = []
    for file in files:
        match = re.search(r"mp_rank_(\d+)(?:_(\d+))?(?:_(\d+))?(?:_model_states\.pt$|/[^/]+\.pt$)", str(file))
        if match and "optim" not in file.name.replace("model_optim_rng", "") and "distrib_optim" not in file.name:
            found.append((int(match[1]), int(match[2] or 0), file))
    if not found:
        return None
    stages = {stage for _, stage, _ in found}

    def loaded() -> Iterator[tuple[int, str, dict[str, Array]]]:
        for rank, stage, file in found:
            yield rank, f"stage {stage}: " if len(stages) > 1 else "", _model_of(torch_file(file))

    checkpoint = _grouped(folder, "Megatron-LM", loaded(), kind="parts")
    return checkpoint


def _model_of(saved: Any) -> dict[str, Array]:
    """The weights in a training state; where several virtual stages are kept, each under its own key."""
    if not isinstance(saved, dict):
        return {}
    keys = [key for key in saved if isinstance(key, str) and re.fullmatch(r"model\d*|module", key)]
    return {name: array for key in keys for name, array in named(saved[key], key if len(keys) > 1 else "")} or dict(named(saved))


def _neox(folder: Path, files: list[Path]) -> Checkpoint | None:
    found = [(match, file) for file in files if (match := re.fullmatch(r"layer_(\d+)-model_(\d+)-model_states\.pt", file.name))]
    if not found:
        return None
    loaded = ((int(match[2]), f"layers.{int(match[1])}.", dict(named(torch_file(file)))) for match, file in found)
    return _grouped(folder, "GPT-NeoX", loaded, kind="parts")


def _nanotron(folder: Path, files: list[Path]) -> Checkpoint | None:
    """nanotron saves a replicated tensor once, and a sharded one with its tensor-parallel rank in the file's name."""
    found = []
    for file in files:
        match = re.fullmatch(r"(.+?)_pp-rank-(\d+)-of-\d+_tp-rank-(\d+)-of-\d+\.safetensors", file.name)
        if match and not _OPTIMIZER.search(str(file.relative_to(folder))):
            place = ".".join(file.relative_to(folder).parent.parts)
            found.append((int(match[3]), f"{place}.{match[1]}", file))
    if not found:
        return None
    loaded = ((rank, f"{name}.", safetensors(file)) for rank, name, file in found)
    return _grouped(folder, "nanotron", loaded, kind="shards")


def _dcp(folder: Path, files: list[Path]) -> Checkpoint | None:
    """torch.distributed.checkpoint: the chunks of each tensor, as the ranks wrote them."""
    metadata = next((file for file in files if file.name == ".metadata"), None)
    if metadata is None:
        return None
    saved = inert.read(metadata.read_bytes())
    storage = saved.get("storage_data") if isinstance(saved, inert.Made) else None
    if not isinstance(storage, dict):
        raise CheckpointError(f"{metadata}: not the metadata of torch.distributed.checkpoint")
    tensors: dict[str, StoredTensor] = {}
    for index, place in storage.items():
        chunk = _chunk(metadata.parent, index, place, saved.get("state_dict_metadata") or {})
        if chunk is not None:
            name, array = chunk
            tensor = tensors.setdefault(name, StoredTensor(name, "shards"))
            tensor.parts.append(Part(len(tensor.parts), array))
    for tensor in tensors.values():
        if len(tensor.parts) == 1:
            tensor.kind = "whole"
    return Checkpoint(folder, "torch DCP", list(tensors.values()))


def _chunk(folder: Path, index: Any, place: Any, tensors: dict[str, Any]) -> tuple[str, Array] | None:
    if not (isinstance(index, inert.Made) and isinstance(place, inert.Made)):
        return None
    name, offsets = index.get("fqn"), index.get("offset")
    about = tensors.get(name)
    if not isinstance(name, str) or _OPTIMIZER.search(name) or not isinstance(about, inert.Made):
        return None
    sizes = next((tuple(chunk.get("sizes")) for chunk in about.get("chunks", []) if chunk.get("offsets") == offsets), None)
    relative = place.get("relative_path")
    if not sizes or not isinstance(relative, str) or ".." in Path(relative).parts or Path(relative).is_absolute():
        return None
    start, length = int(place.get("offset")), int(place.get("length"))
    load: Callable[[], Any] = partial(_dcp_values, folder / relative, start, length)
    properties = about.get("properties")
    dtype = properties.state[0] if isinstance(properties, inert.Made) and isinstance(properties.state, tuple) else None
    word = dtype.path.removeprefix("torch.") if isinstance(dtype, inert.Name) else "float32"
    return name, Array(sizes, word, load)


def _dcp_values(path: Path, start: int, length: int) -> Any:
    value = torch_file(path, start, length)
    if not isinstance(value, Array):
        raise CheckpointError(f"{path}: no tensor at byte {start}")
    return value.raw()


def _whole(folder: Path, files: list[Path]) -> Checkpoint | None:
    """A consolidated checkpoint: halves, quarters and eighths of one matrix are looked at as if they were shards."""
    found = [file for file in files if file.suffix == ".safetensors" and not _OPTIMIZER.search(file.name)]
    if not found:
        return None
    return _grouped(folder, "safetensors", ((0, "", safetensors(file)) for file in found), kind="whole")
