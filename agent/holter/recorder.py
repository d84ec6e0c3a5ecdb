"""The hot path: from `run.step(...)` to one row in the ring, in as few touched cache lines as Python allows."""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from holter.ring import NO_WAIT, ROW_TAIL, ROW_VALUES, ROWS, ROWS_OFFSET, STRIDE, Phase, Ring, State, Word
from holter.values import NotANumberError, is_on_device, to_float

if TYPE_CHECKING:
    from holter.sections import Section

LOOK_EVERY_NS = 1_000_000_000
Packer = Callable[..., None]


class Recorder:
    """Writes one rank's rows and events. `look` is called about once a second, from `step`, to see that a node agent lives."""

    def __init__(self, ring: Ring | None, rank: int, look: Callable[[int], None] | None = None) -> None:
        self.rank = rank
        self._ring = ring
        self._look = look
        self._look_at = time.monotonic_ns() + LOOK_EVERY_NS
        self._tickets = itertools.count()
        self._layouts: dict[tuple[str, ...], tuple[int, Packer, int]] = {}
        self._timed: list[Section] = []
        self._wait = NO_WAIT
        self._last_step = -1
        self._buffer = ring.buffer if ring is not None else memoryview(bytearray(8))

    def step(self, step: Any = None, /, *_ignored: object, **values: Any) -> None:
        """See `Run.step`. Never raises, whatever it is given."""
        now = time.monotonic_ns()
        try:
            layout = self._layouts.get(tuple(values))
            # Only exact floats and ints add up to an exact float; a tensor, an array or a string does not, and `pack` would wait for it.
            if layout is None or self._timed or type(sum(values.values(), 0.0)) is not float or type(step) is not int:
                self._general(step, values, now)
                return
            schema, pack, back = layout
            ticket = next(self._tickets)
            pack(
                self._buffer,
                ROWS_OFFSET + (ticket % ROWS) * STRIDE + back,
                *values.values(),
                now,
                step,
                self._wait,
                schema,
                ticket + 1,
            )
            self._last_step = step
            self._wait = NO_WAIT
        except Exception:  # noqa: BLE001  never raise into a training loop
            self._rescue(step, values, now)
        if now > self._look_at:
            self._look_around(now)

    def _rescue(self, step: Any, values: dict[str, Any], now: int) -> None:
        try:
            self._general(step, values, now)
        except Exception:  # noqa: BLE001  the last guard: the point is lost and counted
            self.drop("internal_error")

    def _general(self, step: Any, values: dict[str, Any], now: int) -> None:
        """Any names, any values: what is no number is counted, what is new gets a layout."""
        if self._ring is None:
            return
        if "step" in values and step is None:
            step = values.pop("step")
        number = self._number(step)
        found = self._floats(values)
        for section in self._timed:
            found[section.metric] = section.nanoseconds / 1e9
        own = [section.nanoseconds for section in self._timed if not section.is_communication]
        if own:
            found.setdefault("compute_seconds", sum(own) / 1e9)
        for section in self._timed:
            section.nanoseconds = 0
        self._timed.clear()
        names = tuple(found)
        for first in range(0, max(1, len(names)), ROW_VALUES):
            self.write(names[first : first + ROW_VALUES], list(found.values())[first : first + ROW_VALUES], now, number)

    def _number(self, step: Any) -> int:
        try:
            number = self._last_step + 1 if step is None else int(step)
        except (TypeError, ValueError, OverflowError):
            number = self._last_step + 1
        return max(-(2**62), min(2**62, number))

    def _floats(self, values: dict[str, Any]) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, value in values.items():
            try:
                if is_on_device(value):
                    raise NotANumberError("on a device")
                found[name[:200]] = to_float(value)
            except NotANumberError:
                self.drop("value_not_a_number")
        return found

    def write(self, names: tuple[str, ...], values: Sequence[float], now: int, step: int) -> None:
        """One row of at most `ROW_VALUES` values."""
        layout = self._layouts.get(names) or self._lay_out(names)
        if layout is None:
            self.drop("too_many_names")
            return
        schema, pack, back = layout
        ticket = next(self._tickets)
        pack(self._buffer, ROWS_OFFSET + (ticket % ROWS) * STRIDE + back, *values, now, step, self._wait, schema, ticket + 1)
        self._last_step = step
        self._wait = NO_WAIT

    def _lay_out(self, names: tuple[str, ...]) -> tuple[int, Packer, int] | None:
        schema = self._ring.schema(names) if self._ring is not None else None
        if schema is None:
            return None
        packer = struct.Struct(f"<{len(names)}d{ROW_TAIL}q")
        layout = self._layouts[names] = (schema, packer.pack_into, STRIDE - packer.size)
        return layout

    def _look_around(self, now: int) -> None:
        self._look_at = now + LOOK_EVERY_NS
        if self._look is not None:
            try:
                self._look(now)
            except Exception:  # noqa: BLE001  never raise into a training loop
                self.drop("internal_error")

    def waited(self, nanoseconds: int) -> None:
        """Add to the wait for data of the step that is under way."""
        self._wait = nanoseconds if self._wait == NO_WAIT else self._wait + nanoseconds

    def timed(self, section: Section) -> None:
        if section not in self._timed:
            self._timed.append(section)

    def enter(self, phase: Phase) -> None:
        if self._ring is not None:
            self._ring.words[Word.PHASE] = phase
            self._ring.words[Word.PHASE_SINCE] = time.monotonic_ns()

    def event(self, word: str, *, step: int | None, attrs: dict[str, Any], lifecycle: bool = False) -> None:
        if self._ring is None:
            return
        at = step if isinstance(step, int) else (self._last_step if self._last_step >= 0 else None)
        event = {"event": word, "rank": self.rank, "step": at, "time_ns": time.time_ns(), "attrs": attrs}
        self._ring.event(event, lifecycle=lifecycle)

    def drop(self, reason: str) -> None:
        if self._ring is not None:
            self._ring.drop(reason)

    def last_steps(self) -> list[int]:
        return list(range(max(0, self._last_step - 4), self._last_step + 1))

    def advice_version(self) -> int:
        return self._ring.words[Word.ADVICE_VERSION] if self._ring is not None else 0

    def advice(self) -> tuple[int, dict[str, Any]]:
        return self._ring.advice() if self._ring is not None else (0, {})

    def close(self, state: State) -> None:
        """Say how it ended and write no more."""
        if self._ring is not None:
            self._ring.words[Word.STATE] = state
            if self._look is not None:
                self._look(time.monotonic_ns())
        self.silence()

    def silence(self) -> None:
        """Write no more: after the end, and in a forked child, which shares the mapping with its parent."""
        self._ring = None
        self._look = None
        self._layouts = {}
