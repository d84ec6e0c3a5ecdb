"""Which tensor is replicated, which is sharded, and how we know: the first of declaration, DTensor, Megatron, nanotron, FSDP, ZeRO, a guess."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from holter.parallel.mesh import Mesh, axis_names
from holter.tensors import Tensor

How: TypeAlias = "str | tuple[str, int]"
Declared: TypeAlias = Mapping[str, "Mapping[str, How] | str"]
"""`{regex: {"tp": "R" | ("S", 0) | "P" | replicated_in_blocks(4)}}`, or `{regex: "skip"}`."""
_WRAPPERS = re.compile(r"(^|\.)(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)(?=\.)")
_NORM = re.compile(r"norm|(^|[._])ln(_|\d|\.|$)|layernorm", re.I)


@dataclass(frozen=True, slots=True)
class Watched:
    """A tensor and what is known of it. `holder` is the parameter; its values are read anew each time, as frameworks exchange them."""

    tensor: Tensor
    holder: Any


def replicated_in_blocks(blocks: int) -> str:
    """For tensors that groups of neighbours hold alike: key and value heads of grouped-query attention when there are fewer than ranks."""
    if blocks < 1:
        raise ValueError(f"blocks is {blocks}; give the number of distinct parts, such as n_kv_heads")
    return f"B{blocks}"


def discover(params: Mapping[str, Any], mesh: Mesh, declare: Declared, *, masters: bool = True) -> list[Watched]:
    """The watched tensors in the order of the model. Raises `ValueError` or `re.error` for a declaration that cannot be understood."""
    rules = [(re.compile(pattern), how) for pattern, how in declare.items()]
    kind = _framework(params)
    found = []
    for raw_name, param in params.items():
        name = _clean(raw_name)
        said = next((how for rule, how in rules if rule.search(name)), None)
        if said == "skip":
            continue
        axes, source = _axes(name, param, mesh, kind=kind)
        if isinstance(said, Mapping):
            axes = {**axes, **{axis: _word(how) for axis, how in said.items() if axis in mesh.compared}}
            source = "declared"
        elif said is not None:
            raise ValueError(f'declare[{name!r}] is {said!r}; give {{"tp": "R"}}, {{"tp": ("S", 0)}} or "skip"')
        holder = _master(param) if masters else param
        local = local_of(holder)
        if local.numel():
            found.append(Watched(Tensor(name, str(local.dtype).removeprefix("torch."), tuple(local.shape), axes, source), holder))
    return found


def local_of(holder: Any) -> Any:
    """This rank's part of a parameter, as it is now."""
    if hasattr(holder, "ds_tensor"):  # DeepSpeed ZeRO-3
        return holder.ds_tensor.detach()
    value = holder.detach()
    return value.to_local() if hasattr(value, "to_local") else value


def _clean(name: str) -> str:
    while True:
        shorter = _WRAPPERS.sub(r"\1", name).replace("..", ".").lstrip(".")
        if shorter == name:
            return name
        name = shorter


def _word(how: How) -> str:
    word = f"{how[0]}{how[1]}" if isinstance(how, tuple | list) else str(how)
    if not re.fullmatch(r"R|P|\?|S\d*|B\d+", word):
        raise ValueError(f'{how!r} is no placement; use "R", ("S", dimension), "P" or holter.parallel.replicated_in_blocks(n)')
    return "S0" if word == "S" else word


def _master(param: Any) -> Any:
    """The fp32 master copy where the framework hangs it on the parameter whole: it shows drift that bf16 rounds away for tens of steps."""
    main = getattr(param, "main_param", None)
    return main if main is not None and tuple(main.shape) == tuple(param.shape) else param


def _framework(params: Mapping[str, Any]) -> str:
    """What the model's other parameters say of one that says nothing itself."""
    if any(hasattr(param, "tensor_model_parallel") for param in params.values()):
        return "megatron"
    return "dtensor" if any(hasattr(param, "placements") for param in params.values()) else ""


def _axes(name: str, param: Any, mesh: Mesh, *, kind: str) -> tuple[dict[str, str], str]:
    axes = dict.fromkeys(mesh.data, "?" if mesh.is_guessed else "R")
    sharded_over = next((axis for axis in mesh.data if "shard" in axis or axis == "fsdp"), mesh.data[-1] if mesh.data else None)
    if hasattr(param, "placements") and hasattr(param, "device_mesh"):
        return {**axes, **dict.fromkeys(mesh.model, "R"), **_dtensor(param, mesh)}, "dtensor"
    if hasattr(param, "ds_tensor") or "_flat_param" in name:
        if sharded_over:
            axes[sharded_over] = "S0"
        return {**axes, **dict.fromkeys(mesh.model, "?")}, "zero-3" if hasattr(param, "ds_tensor") else "fsdp"
    if kind == "megatron":
        return {**axes, **_megatron(param, mesh)}, "megatron"
    if hasattr(param, "is_sharded"):
        return {**axes, **_nanotron(param, mesh)}, "nanotron"
    if not mesh.model:
        return axes, "guessed" if mesh.is_guessed else "data parallel"
    if kind == "dtensor":
        # What `parallelize_module` left alone is whole on every rank.
        return {**axes, **dict.fromkeys(mesh.model, "R")}, "no dtensor"
    return {**axes, **{axis: "R" if _is_norm(name, param) else "?" for axis in mesh.model}}, "guessed"


def _is_norm(name: str, param: Any) -> bool:
    return param.ndim == 1 and bool(_NORM.search(name))


def _dtensor(param: Any, mesh: Mesh) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, placement in zip(axis_names(param.device_mesh), param.placements, strict=True):
        # A flattened axis ("dp_shard_cp") stands for those that it was made of.
        for axis in [name] if name in mesh.compared else [axis for axis in mesh.compared if axis in name]:
            if placement.is_replicate():
                found[axis] = "R"
            elif placement.is_partial():
                found[axis] = "P"
            else:
                # _StridedShard is a Shard with another order; it has `dim` too.
                found[axis] = f"S{placement.dim}"
    return found


def _megatron(param: Any, mesh: Mesh) -> dict[str, str]:
    """Megatron-LM's attributes (core/tensor_parallel/layers.py, d98e8a64)."""
    axes = dict.fromkeys(mesh.model, "R")
    if "tp" in axes and getattr(param, "tensor_model_parallel", False):
        axes["tp"] = f"S{max(0, int(getattr(param, 'partition_dim', 0)))}"
    if "ep" in axes and getattr(param, "allreduce", True) is False:
        axes["ep"] = "S0"
    return axes


def _nanotron(param: Any, mesh: Mesh) -> dict[str, str]:
    """nanotron's NanotronParameter (parallel/parameters.py, 2411b022): which dimension is shorter than in the unsharded shape."""
    axes = dict.fromkeys(mesh.model, "R")
    if "tp" in axes and param.is_sharded:
        whole = tuple(param.get_sharded_info().unsharded_shape)
        axes["tp"] = f"S{next((place for place, (mine, all_) in enumerate(zip(param.shape, whole, strict=False)) if mine != all_), 0)}"
    return axes
