"""`run.watch`: hangs fingerprints on the optimizer's step, tells the record which tensor lies how, and lets go of itself when it fails."""

from __future__ import annotations

import base64
import hashlib
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from holter.fingerprint import Flag
from holter.parallel.fingerprints import Fingerprints, Scalars
from holter.parallel.mesh import REPLICATING, STAGE_AXES, Mesh, mesh_of
from holter.parallel.placements import Declared, discover
from holter.parallel.table import table
from holter.tensors import Layout

_log = logging.getLogger("holter")


class Record(Protocol):
    """What a watch needs of the run."""

    def event(self, word: str, /, *, step: int | None = None, **attrs: Any) -> None: ...

    @property
    def last_step(self) -> int: ...


class Watch:
    """One rank's watch over its tensors. Its hooks never raise: the first failure switches it off and is logged once, and put on record.

    Forks of the process and further optimizers are not watched. `batch` and `position` are optional words from the training loop.
    """

    def __init__(self, record: Record, fingerprints: Fingerprints, layout: Layout, *, every: int, mesh: Mesh) -> None:
        self._record, self._fingerprints, self._every = record, fingerprints, max(1, every)
        self.layout, self.mesh = layout, mesh
        self.is_on = True
        self._index = 0
        self._steps = 0
        self._batch: Any = None
        self._position = 0
        self._optimizer: Any = None
        self._dropouts: list[Any] = []
        self._weights: Any = None
        self._hooks: list[Any] = []

    # -- from the training loop ---------------------------------------------------------------------------------------------------

    def batch(self, batch: Any, position: object = None) -> None:
        """Tell the batch that is trained on next, and where the dataloader stands. Only kept until the next fingerprint, and not copied."""
        self._batch = batch
        if position is not None:
            self._position = _hash(repr(position).encode())

    def finish(self) -> None:
        """The run ends: hand out what is under way. Waits for the device's last copy, two seconds at most."""
        self._guarded(self._last)
        self.detach()

    def detach(self) -> None:
        """Let go of the optimizer. A second call does nothing."""
        self.is_on = False
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._batch = None

    # -- hooks --------------------------------------------------------------------------------------------------------------------

    def attach(self, model: Any, optimizer: Any) -> None:
        self._optimizer = optimizer
        self._dropouts = [module for module in model.modules() if _may_drop(module)] if hasattr(model, "modules") else []
        if hasattr(optimizer, "register_step_post_hook"):
            self._hooks.append(optimizer.register_step_pre_hook(lambda *_: self._guarded(self._before)))
            self._hooks.append(optimizer.register_step_post_hook(lambda *_: self._guarded(self._after)))
        elif optimizer is not None:
            self._hooks.append(_Wrapped(optimizer, self))

    def first(self) -> None:
        """The fingerprint of the tensors as they are when the watch begins: an initialisation that is wrong is wrong before any step."""
        self._take()
        step = self._record.last_step
        self._fingerprints.release(step if step >= 0 else 0)
        self._fingerprints.wait()
        self._fingerprints.ready(self._emit)

    def _before(self) -> None:
        self._fingerprints.recheck(self._step())
        self._fingerprints.ready(self._emit)
        if self._steps % self._every == 0:
            self._fingerprints.before(self._index)

    def _after(self) -> None:
        if self._steps % self._every == 0:
            self._take()
        self._steps += 1

    def _last(self) -> None:
        self._fingerprints.release(self._step())
        self._fingerprints.wait()
        self._fingerprints.ready(self._emit)

    def _step(self) -> int:
        """The step just finished: the run's own count, or ours where `run.step` is never called."""
        step = self._record.last_step
        return step if step >= 0 else max(0, self._steps - 1)

    def _take(self) -> None:
        import torch

        with torch.no_grad():
            self._fingerprints.after(self._index, self._scalars())
        self._index += 1

    def _guarded(self, action: Callable[[], None]) -> None:
        if not self.is_on:
            return
        try:
            action()
        except Exception as error:  # noqa: BLE001  never raise into a training loop
            self.switch_off(error)

    def switch_off(self, error: Exception) -> None:
        self.detach()
        reason = f"{type(error).__name__}: {error}"[:400]
        _log.warning("fingerprints are off for the rest of this run (%s); the training is not affected", reason)
        self._record.event("watch_off", reason=reason)

    # -- what travels -------------------------------------------------------------------------------------------------------------

    def declare(self) -> None:
        """Put the layout on record: the hash from every rank, the table from one of each group of replicas."""
        attrs: dict[str, Any] = {
            "layout": f"{self.layout.digest & (2**64 - 1):016x}",
            "mesh": {axis: [self.mesh.place[axis], size] for axis, size in self.mesh.sizes.items()},
        }
        if all(self.mesh.place[axis] == 0 for axis in self.mesh.data):
            attrs["table"] = self.layout.to_json()
        self._record.event("watch", **attrs)

    def _emit(self, index: int, step: int, data: bytes) -> None:
        layout = f"{self.layout.digest & (2**64 - 1):016x}"
        self._record.event("fingerprint", step=step, data=base64.b64encode(data).decode(), layout=layout, index=index)

    def _scalars(self) -> Scalars:
        flags = int(Flag.DROPOUT) if any(module.training for module in self._dropouts) else 0
        scalars = Scalars(_lr(self._optimizer), self._position, _generator_state(self._fingerprints.device), _megatron_rng(), flags)
        scalars.batch = self._batch_checksum()
        return scalars

    def _batch_checksum(self) -> Any:
        """A device scalar: the sum of the token ids, each times a fixed pseudo-random word of its place."""
        import torch

        from holter.checksum import mixed

        found = _tokens(self._batch)
        if found is None or not found.numel():
            return None
        ids = found.detach().reshape(-1)
        ids = ids.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[ids.element_size()]) if ids.is_floating_point() else ids
        ids = ids[: 1 << 20].to(torch.int64)
        if self._weights is None or len(self._weights) < len(ids) or self._weights.device != ids.device:
            self._weights = torch.from_numpy(mixed(1 << 41, len(ids))).to(ids.device)
        return ((ids + 1) * self._weights[: len(ids)]).sum().to(self._fingerprints.device, non_blocking=True)


class _Wrapped:
    """An optimizer without step hooks (Megatron's, DeepSpeed's wrappers): its `step` is wrapped on the instance."""

    def __init__(self, optimizer: Any, watch: Watch) -> None:
        self._optimizer, self._step = optimizer, optimizer.step

        def step(*args: Any, **kwargs: Any) -> Any:
            watch._guarded(watch._before)
            answer = self._step(*args, **kwargs)
            watch._guarded(watch._after)
            return answer

        optimizer.step = step

    def remove(self) -> None:
        self._optimizer.step = self._step


def begin(
    record: Record,
    model: Any,
    optimizer: Any = None,
    *,
    mesh: Any = None,
    declare: Declared | None = None,
    tied: Sequence[tuple[str, ...]] = (),
    every: int = 10,
    fraction: float = 0.1,
    at_rest: bool = True,
    masters: bool = True,
    report: Callable[[str], None] | None = None,
    known_mesh: tuple[Mapping[str, int], Mapping[str, int]] = ({}, {}),
) -> Watch:
    """See `holter.parallel.watch`. Raises what is wrong with the arguments."""
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}; give the share of the tensors that each fingerprint looks at, above 0 and at most 1")
    params = dict(model.named_parameters()) if hasattr(model, "named_parameters") else dict(model)
    place = mesh_of(mesh, params, known_mesh)
    if place.is_guessed and type(model).__name__ in REPLICATING:
        place = replace(place, source=type(model).__name__)
    watched = discover(params, place, declare or {}, masters=masters)
    if not watched:
        raise ValueError("the model has no parameters on this rank")
    names = {entry.tensor.name for entry in watched}
    place_of_tied = [name for group in tied for name in group if name in names]
    if tied and not place_of_tied and not any(size > 1 for axis, size in place.sizes.items() if axis in STAGE_AXES):
        raise ValueError(f"tied names {tied!r}, but this model has none of them")
    devices = {str(_device(entry.holder)) for entry in watched}
    main = max(devices, key=lambda device: sum(str(_device(entry.holder)) == device for entry in watched))
    watched = [entry for entry in watched if str(_device(entry.holder)) == main]
    layout = Layout(tuple(entry.tensor for entry in watched), fraction, tuple(place.model), dict(place.sizes), tuple(map(tuple, tied)))
    watch = Watch(record, Fingerprints(watched, layout, at_rest=at_rest), layout, every=every, mesh=place)
    if report is not None:
        report(table(layout, place))
    watch.declare()
    watch.attach(model, optimizer)
    watch.first()
    return watch


def _device(holder: Any) -> Any:
    from holter.parallel.placements import local_of

    return local_of(holder).device


def _may_drop(module: Any) -> bool:
    """Whether the module drops at random while training: nn.Dropout, or an attention that carries its rate."""
    kind = type(module).__name__
    rate = getattr(module, "p", 0.0) if "Dropout" in kind else getattr(module, "attention_dropout", getattr(module, "dropout_p", 0.0))
    return isinstance(rate, int | float) and not isinstance(rate, bool) and rate > 0


def _lr(optimizer: Any) -> float:
    """The learning rate; of several groups a combination in which each counts. NaN where it lives on a device."""
    groups = getattr(optimizer, "param_groups", None) or []
    rates = [float(rate) for group in groups if isinstance(rate := group.get("lr"), int | float)]
    if not rates or len(rates) != len(groups):
        return float("nan")
    return float(sum(rate * (place + 1) for place, rate in enumerate(rates)) / sum(range(1, len(rates) + 1)))


def _generator_state(device: Any) -> int:
    """A hash of the default generator's state. CUDA keeps seed and offset on the host, so this waits for nothing."""
    import torch

    if device.type == "cuda":
        generator = torch.cuda.default_generators[device.index or 0]
        return _hash(f"{generator.initial_seed()}|{generator.get_offset()}".encode())
    return _hash(torch.get_rng_state().numpy().tobytes())


def _megatron_rng() -> int:
    """A hash of Megatron's model-parallel stream; 0 where there is none. Its states live on the host."""
    module = sys.modules.get("megatron.core.tensor_parallel.random")
    if module is None:
        return 0
    state = module.get_cuda_rng_tracker().get_states().get("model-parallel-rng")
    if state is None or getattr(state, "is_cuda", False) or not hasattr(state, "numpy"):
        return 0
    return _hash(state.numpy().tobytes())


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)


def _tokens(batch: Any) -> Any:
    """The token ids in a batch: a tensor, or the one called `input_ids` or `tokens`, or the first tensor."""
    if hasattr(batch, "element_size"):
        return batch
    if isinstance(batch, Mapping):
        named = batch.get("input_ids", batch.get("tokens"))
        return named if hasattr(named, "element_size") else next((v for v in batch.values() if hasattr(v, "element_size")), None)
    if isinstance(batch, list | tuple):
        return next((found for found in map(_tokens, batch) if found is not None), None)
    return None
