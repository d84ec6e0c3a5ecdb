"""One rank's fingerprints: what is taken before and after an optimizer step, put together on the device, handed out without waiting."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from holter.checksum import ROW
from holter.fingerprint import BUCKETS, CONSTANT_SHIFT, SKETCH, WORDS, Slot
from holter.parallel.checksums import Checksums
from holter.parallel.placements import Watched, local_of
from holter.parallel.sketches import DriftSketch, ShardSketch
from holter.tensors import Layout

if TYPE_CHECKING:
    import torch

MAX_PENDING = 4
"""Copies to the host that may be under way; a device that is further behind loses the oldest."""


@dataclass
class Scalars:
    """What the host knows at the moment of a fingerprint; `batch` is computed on the device."""

    lr: float = float("nan")
    position: int = 0
    rng: int = 0
    model_rng: int = 0
    flags: int = 0
    batch: torch.Tensor | None = None


@dataclass
class _Pending:
    index: int
    step: int
    words: torch.Tensor
    buckets: Sequence[torch.Tensor] = ()
    is_checked: bool = False
    host: torch.Tensor | None = None
    event: torch.cuda.Event | None = field(default=None)


class Fingerprints:
    """`before` and `after` an optimizer step that is fingerprinted, `recheck` before the next one, `ready` to collect what has arrived.

    All launches go to the current stream. Nothing here synchronises: on a CUDA device the 512 bytes are copied to pinned memory and read
    when their event is done.
    """

    def __init__(self, watched: Sequence[Watched], layout: Layout, *, at_rest: bool = True) -> None:
        import torch

        self._torch = torch
        self._watched = list(watched)
        self._layout = layout
        self._at_rest = at_rest
        self.device = local_of(watched[0].holder).device
        rows = [sum(-(-piece.lanes // ROW) for piece in chunk.pieces) for chunk in layout.data_chunks + layout.model_chunks]
        self._checksums = Checksums(self.device, max(rows, default=1) + 1)
        self._drift = DriftSketch(self.device)
        self._shards = ShardSketch(self.device)
        self._before: dict[bool, torch.Tensor] = {}
        self._bits = torch.tensor([1 << place for place in range(BUCKETS)], dtype=torch.int64, device=self.device)
        self._pending: deque[_Pending] = deque()
        self.lost = 0
        """Fingerprints dropped because the device was too far behind."""

    def before(self, index: int) -> None:
        """Keep a sample of what this step will change, to know the size of its update."""
        values = self._locals()
        self._before = {
            is_model: self._drift.sample(chunk, values)
            for is_model, chunk in ((True, self._layout.model_chunk(index)), (False, self._layout.data_chunk(index)))
        }

    def after(self, index: int, scalars: Scalars) -> None:
        """Take fingerprint `index` of the tensors as they are now."""
        torch = self._torch
        values = self._locals()
        words = torch.from_numpy(_host_words(index, self._layout.digest, scalars)).to(self.device, non_blocking=True)
        floats = words.view(torch.float32)
        if scalars.batch is not None:
            words[Slot.BATCH] = scalars.batch
        for slot, sketch, place, chunk in (
            (Slot.MODEL, Slot.MODEL_SKETCH, 0, self._layout.model_chunk(index)),
            (Slot.DATA, Slot.DATA_SKETCH, 1, self._layout.data_chunk(index)),
        ):
            if not chunk.pieces:
                continue
            words[slot : slot + 3 * BUCKETS] = self._checksums.block(chunk.buckets(index), values)
            sample = self._drift.sample(chunk, values)
            floats[2 * sketch : 2 * sketch + 8] = self._drift.project(sample)
            earlier = self._before.get(place == 0)
            if earlier is not None and len(earlier) == len(sample):
                floats[2 * Slot.UPDATE + place] = torch.linalg.vector_norm(sample - earlier)
        family = self._layout.family(index)
        if family is not None:
            floats[2 * Slot.SHARD : 2 * Slot.SHARD + SKETCH], constant = self._shards.of(family, index, values)
            words[Slot.FLAGS] += constant << CONSTANT_SHIFT
        tied = self._layout.tied_pieces(index)
        if tied:
            words[Slot.TIED] = torch.stack([self._checksums.bucket([piece], values)[2] for piece in tied]).sum()
        self._before = {}
        self._pending.append(_Pending(index, -1, words))

    def recheck(self, step: int) -> None:
        """Before the next optimizer step: name the step that the last fingerprint belongs to, and see whether its tensors are unchanged."""
        for pending in self._pending:
            if pending.step >= 0 or pending.host is not None:
                continue
            pending.step = step
            if self._at_rest and self._layout.data_chunks:
                words = pending.words
                old = words[Slot.DATA : Slot.DATA + 3 * BUCKETS].view(BUCKETS, 3)
                new = self._checksums.block(self._layout.data_chunk(pending.index).buckets(pending.index), self._locals()).view(BUCKETS, 3)
                change = new - old
                words[Slot.AT_REST] = ((change != 0).any(1) * self._bits).sum()
                words[Slot.AT_REST_CHANGE : Slot.AT_REST_CHANGE + 3] = change.sum(0)
            self._send(pending)
        while len(self._pending) > MAX_PENDING:
            self._pending.popleft()
            self.lost += 1

    def release(self, step: int) -> None:
        """Send what was taken without waiting for another step: the first fingerprint, and the last."""
        for pending in self._pending:
            if pending.host is None:
                pending.step = step if pending.step < 0 else pending.step
                self._send(pending)

    def ready(self, emit: Callable[[int, int, bytes], None]) -> None:
        """Hand out `(index, step, 512 bytes)` of each fingerprint whose copy has arrived."""
        while self._pending and self._pending[0].host is not None:
            first = self._pending[0]
            if first.event is not None and not first.event.query():
                return
            assert first.host is not None
            raw = first.host.numpy().copy()
            raw[Slot.STEP] = first.step
            self._pending.popleft()
            emit(first.index, first.step, raw.astype("<i8").tobytes())

    def wait(self, seconds: float = 2.0) -> None:
        """At the beginning and the end only: let the copies arrive, but do not wait for a device that hangs."""
        until = time.monotonic() + seconds
        while any(pending.event is not None and not pending.event.query() for pending in self._pending) and time.monotonic() < until:
            time.sleep(0.001)

    def _send(self, pending: _Pending) -> None:
        torch = self._torch
        if self.device.type == "cpu":
            pending.host = pending.words
            return
        pending.host = torch.empty(WORDS, dtype=torch.int64, pin_memory=self.device.type == "cuda")
        pending.host.copy_(pending.words, non_blocking=True)
        if self.device.type == "cuda":
            pending.event = torch.cuda.Event()
            pending.event.record()

    def _locals(self) -> dict[str, torch.Tensor]:
        return {watched.tensor.name: local_of(watched.holder) for watched in self._watched}


def _host_words(index: int, digest: int, scalars: Scalars) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    words = np.zeros(WORDS, np.int64)
    words[Slot.VERSION], words[Slot.STEP], words[Slot.INDEX], words[Slot.LAYOUT] = 1, -1, index, digest
    words[Slot.POSITION], words[Slot.RNG], words[Slot.MODEL_RNG] = scalars.position, scalars.rng, scalars.model_rng
    words[Slot.FLAGS], words[Slot.AT_REST] = scalars.flags, -1
    words[Slot.LR] = np.float64(scalars.lr).view(np.int64)
    return words
