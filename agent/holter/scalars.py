"""Scalars that live on a GPU: copied in stream order, picked up at a later step, never waited for.

On the current stream the device scalars of a step are packed into one row, copied into pinned memory without blocking, and an event is
recorded. The value captured is the one at this point of the stream: what is queued later (an in-place operation, the next replay of a CUDA
graph) cannot change it. At later steps `query` asks whether a copy is done, oldest first; a row that is done completes its step. When all
rows are under way the sample is dropped and counted. While a graph is being captured nothing is touched: an event or a copy would become
part of the graph.

An array that says itself when it is ready (`jax.Array`) cannot change: it is kept, and read once it says so.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias

from holter.values import NotANumberError, to_float

DEPTH = 64
"""Steps that may be under way at once; an eager loop runs a few steps ahead of its device."""
WIDTH = 64
MAX_PENDING = 4 * DEPTH
Spans: TypeAlias = "tuple[tuple[str, Any, Any], ...]"


class Device(Protocol):
    """What the tap needs of an accelerator; torch's CUDA here, a fake in the tests."""

    def is_capturing(self) -> bool: ...

    def rows(self, depth: int, width: int) -> Any:
        """Pinned host memory, (depth, width) float32."""

    def event(self) -> Any:
        """With `record()` and `query() -> bool`."""

    def timing_event(self) -> Any:
        """The same, with `elapsed_time(later) -> milliseconds` besides."""

    def copy(self, row: Any, scalars: list[Any]) -> None:
        """Enqueue the scalars' copy into `row` on the current stream; must not wait."""


class DeviceKind(Protocol):
    """Makes the device at its first use."""

    def __call__(self) -> Device: ...

    def is_used(self) -> bool:
        """Whether this process computes on such a device already; asking must not be what starts it."""


@dataclass(frozen=True, slots=True)
class Pending:
    """One step whose device values are on their way."""

    row: int
    step: int
    time_ns: int
    names: tuple[str, ...]
    known: dict[str, float]
    """The step's values that were not on the device."""
    spans: tuple[tuple[str, Any, Any], ...] = ()
    """`(metric, first event, last event)`: times on the device that add up to the metric."""
    late: tuple[tuple[str, Any], ...] = ()
    """Arrays that say themselves when they can be read."""


class ScalarTap:
    """`put` takes a step with device scalars, `poll` gives the steps that are complete to `sink(step, time_ns, values)`."""

    def __init__(self, kind: Callable[[], Device], sink: Callable[[int, int, dict[str, float]], None]) -> None:
        self._kind, self._sink = kind, sink
        self._unread = 0
        self._pending: deque[Pending] = deque()
        self._rows: Any = None
        self._events: list[Any] = []
        self._free: list[int] = []
        self.spare: list[Any] = []
        """Timing events that may be recorded again."""

    def put(self, step: int, time_ns: int, scalars: dict[str, Any], known: dict[str, float], *, spans: Spans = ()) -> bool:
        """False when the device values could not be taken: too many steps under way, or a graph is being captured."""
        late = {name: scalar for name, scalar in scalars.items() if hasattr(scalar, "is_ready")}
        scalars = {name: scalar for name, scalar in scalars.items() if name not in late}
        if scalars and self._device.is_capturing():
            return False
        self.poll()
        if not scalars and not late:
            # Only waits for those before it.
            if self._pending or spans:
                self._append(Pending(-1, step, time_ns, (), known, spans))
            else:
                self._sink(step, time_ns, known)
            return True
        if late and len(self._pending) >= DEPTH:
            return False
        row = self._send(scalars) if scalars else -1
        if row is None:
            return False
        for array in late.values():
            if hasattr(array, "copy_to_host_async"):
                array.copy_to_host_async()
        self._append(Pending(row, step, time_ns, tuple(scalars), known, spans, tuple(late.items())))
        return True

    @cached_property
    def _device(self) -> Device:
        """Made when it is needed: a process that knows only jax has no torch to make one with."""
        return self._kind()

    def _send(self, scalars: dict[str, Any]) -> int | None:
        """Queue the copy of device scalars; the answer is their row of pinned memory, None where all are under way."""
        if self._rows is None:
            # The one call that may wait for the device, at the first step: pinned memory must come from somewhere.
            self._rows = self._device.rows(DEPTH, WIDTH)
            self._events = [self._device.event() for _ in range(DEPTH)]
            self._free = list(range(DEPTH - 1, -1, -1))
        if not self._free or len(scalars) > WIDTH:
            return None
        row = self._free.pop()
        self._device.copy(self._rows[row], list(scalars.values()))
        self._events[row].record()
        return row

    def _append(self, pending: Pending) -> None:
        if len(self._pending) >= MAX_PENDING:
            # A device that stands still: what is known of the oldest step is told now, its place in pinned memory is never used again.
            oldest = self._pending.popleft()
            self._sink(oldest.step, oldest.time_ns, oldest.known)
        self._pending.append(pending)

    def poll(self) -> None:
        """Give out what is complete, oldest first; one query for each step that is, and one for the first that is not."""
        while self._pending and self._is_done(self._pending[0]):
            done = self._pending.popleft()
            values = self._rows[done.row].tolist() if done.names else []
            if done.names:
                self._free.append(done.row)
            told = dict(zip(done.names, values, strict=False))
            self._sink(done.step, done.time_ns, {**done.known, **self._times(done), **told, **self._late(done)})

    def _late(self, done: Pending) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, array in done.late:
            try:
                found[name] = to_float(array)
            except NotANumberError:
                self._unread += 1
        return found

    def take_unread(self) -> int:
        """Late arrays that could not be read after all (their buffer was given away), since this was last asked."""
        taken, self._unread = self._unread, 0
        return taken

    def _is_done(self, pending: Pending) -> bool:
        if not all(_is_ready(array) for _, array in pending.late):
            return False
        if not pending.names and not pending.spans:
            return True
        if self._device.is_capturing():
            return False
        return all(last.query() for _, _, last in pending.spans) and (not pending.names or bool(self._events[pending.row].query()))

    def _times(self, done: Pending) -> dict[str, float]:
        found: dict[str, float] = {}
        for metric, first, last in done.spans:
            found[metric] = found.get(metric, 0.0) + first.elapsed_time(last) / 1e3
            self.spare += [first, last]
        return found

    def take_incomplete(self) -> list[Pending]:
        """The steps still under way, given up."""
        given_up = list(self._pending)
        self._pending.clear()
        return given_up

    @property
    def under_way(self) -> int:
        return len(self._pending)


def _is_ready(array: Any) -> bool:
    try:
        return bool(array.is_ready())
    except Exception:  # noqa: BLE001  deleted since: reading it will say so, and it is counted
        return True


class Cuda:
    """torch's CUDA (or ROCm, which torch calls cuda)."""

    @staticmethod
    def is_used() -> bool:
        torch = sys.modules.get("torch")
        return torch is not None and bool(torch.cuda.is_initialized())

    def __init__(self) -> None:
        self._torch: Any = sys.modules["torch"]

    def is_capturing(self) -> bool:
        return bool(self._torch.cuda.is_current_stream_capturing())

    def rows(self, depth: int, width: int) -> Any:
        return self._torch.empty((depth, width), dtype=self._torch.float32, pin_memory=True)

    def event(self) -> Any:
        return self._torch.cuda.Event(enable_timing=False, blocking=False)

    def timing_event(self) -> Any:
        return self._torch.cuda.Event(enable_timing=True, blocking=False)

    def copy(self, row: Any, scalars: list[Any]) -> None:
        torch = self._torch
        with torch.no_grad(), torch.cuda.device(scalars[0].device):
            # A fresh tensor on the current stream: the allocator frees it in stream order, so no `record_stream` is needed.
            packed = torch.stack([scalar.detach().reshape(()).to(torch.float32) for scalar in scalars])
            row[: len(scalars)].copy_(packed, non_blocking=True)
