"""The hot path in Python, where `_hot.c` was not built: the same rows, the same names, some ten microseconds more after a cold step."""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Callable
from typing import Any

from holter.ring import ROW_TAIL

Packer = Callable[..., None]
_NOWHERE = memoryview(b"")


class RowWriter:
    """Writes rows of plain numbers into `buffer`; everything else goes to `general`. Never raises an `Exception`.

    `look` is called by the first step after `look_at`. `wait` is what was waited for data since the last row, `no_wait` when nothing was.
    """

    def __init__(  # noqa: PLR0917  the C twin takes the same
        self, buffer: memoryview, offset: int, num_rows: int, stride: int, general: Packer, look: Callable[[], None], no_wait: int
    ) -> None:
        self._buffer, self._offset, self._num_rows, self._stride = buffer, offset, num_rows, stride
        self._general: Packer | None = general
        self._look: Callable[[], None] | None = look
        self._no_wait = no_wait
        self._layouts: dict[tuple[str, ...], tuple[int, Packer, int]] = {}
        self.next_ticket = itertools.count().__next__  # atomic: two threads get two slots
        self.wait = no_wait
        self.last_step = -1
        self.look_at = 0
        self.lost = 0
        self.is_plain = 1

    def step(self, step: Any = None, /, *extra: Any, **values: Any) -> None:
        """Write one row."""
        now = time.monotonic_ns()
        try:
            layout = self._layouts.get(tuple(values))
            # Only exact floats and ints add up to an exact float; a tensor, an array or a string does not, and `pack` would wait for it.
            if layout is not None and self.is_plain and type(step) is int and type(sum(values.values(), 0.0)) is float:
                schema, pack, at = layout
                ticket = self.next_ticket()
                at += (ticket % self._num_rows) * self._stride
                pack(self._buffer, at, *values.values(), now, step, self.wait, schema, ticket + 1)
                self.last_step = step
                self.wait = self._no_wait
            elif self._general is not None:
                self._general(step, *extra, **values)
        except Exception:  # noqa: BLE001  the SDK's guard: `pack` met what it cannot pack
            self._rescue(step, extra, values)
        if now > self.look_at and self._look is not None:
            try:
                self._look()
            except Exception:  # noqa: BLE001  the SDK's guard
                self.lost += 1

    def _rescue(self, step: Any, extra: tuple[Any, ...], values: dict[str, Any]) -> None:
        try:
            if self._general is not None:
                self._general(step, *extra, **values)
        except Exception:  # noqa: BLE001  the last guard: the point is lost and counted
            self.lost += 1

    def learn(self, names: tuple[str, ...], schema: int) -> None:
        """Write rows of these names here from now on."""
        packer = struct.Struct(f"<{len(names)}d{ROW_TAIL}q")
        if names and packer.size <= self._stride:
            self._layouts[names] = (schema, packer.pack_into, self._offset + self._stride - packer.size)

    def close(self) -> None:
        """Write no more, and let go of the buffer: a forked child that held it would keep the ring's descriptor."""
        self._layouts = {}
        self._general = self._look = None
        self._buffer = _NOWHERE
