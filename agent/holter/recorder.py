"""Between `Run` and the ring: what a step needs that is not plain, and everything that is not a step."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from holter.ring import NO_WAIT, ROW_TAIL, ROW_VALUES, ROWS, ROWS_OFFSET, STRIDE, Phase, Ring, State, Word
from holter.values import NotANumberError, is_on_device, to_float

if TYPE_CHECKING:
    from holter.sections import Section

try:
    from holter._hot import RowWriter
except ImportError:  # no compiler where it was installed
    from holter.row_writer import RowWriter

LOOK_EVERY_NS = 1_000_000_000
_MAX_NAME = 200
_NO_ROWS = memoryview(bytearray(STRIDE))


class Recorder:
    """Writes one rank's rows and events. `look` is called about once a second, from a step, to see that a node agent lives."""

    def __init__(self, ring: Ring | None, rank: int, look: Callable[[int], None] | None = None, writer: type[Any] = RowWriter) -> None:
        self.rank = rank
        self._ring = ring
        self._look = look
        self._timed: list[Section] = []
        self._packers: dict[int, struct.Struct] = {}
        if ring is None:
            self._rows = writer(_NO_ROWS, 0, 1, STRIDE, _nothing, _nothing, NO_WAIT)
            self._rows.close()
        else:
            self._rows = writer(ring.buffer, ROWS_OFFSET, ROWS, STRIDE, self._general, self._look_around, NO_WAIT)
            self._rows.look_at = time.monotonic_ns() + LOOK_EVERY_NS
        self.step = self._rows.step

    # -- steps that are not plain --------------------------------------------------------------------------------------------

    def _general(self, step: Any = None, /, *_extra: Any, **values: Any) -> None:
        """Any names, any values: what is no number is counted, what is new becomes a schema, what was timed is added."""
        now = time.monotonic_ns()
        if self._ring is None:
            return
        if step is None:
            step = values.pop("step", None)
        number = self._number(step)
        found = self._floats(values)
        self._add_timed(found)
        names = tuple(found)
        self._write(self._ring, names, found, now, number)

    def _number(self, step: Any) -> int:
        try:
            if type(step) is not int:
                step = self._rows.last_step + 1 if step is None else int(to_float(step))
        except (NotANumberError, ValueError, OverflowError):
            step = self._rows.last_step + 1
        return max(-(2**62), min(2**62, int(step)))

    def _floats(self, values: dict[str, Any]) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, value in values.items():
            try:
                if is_on_device(value):
                    raise NotANumberError("on a device")
                found[name[:_MAX_NAME]] = to_float(value)
            except NotANumberError:
                self.drop("value_not_a_number")
        return found

    def _add_timed(self, found: dict[str, float]) -> None:
        own = 0
        for section in self._timed:
            found[section.metric] = section.nanoseconds / 1e9
            own += 0 if section.is_communication else section.nanoseconds
            section.nanoseconds = 0
        if own:
            found.setdefault("compute_seconds", own / 1e9)
        self._timed.clear()
        self._rows.is_plain = 1

    def _write(self, ring: Ring, names: tuple[str, ...], found: dict[str, float], now: int, step: int) -> None:
        """As many rows as the values need, most often one."""
        values = list(found.values())
        for first in range(0, max(1, len(names)), ROW_VALUES):
            part = names[first : first + ROW_VALUES]
            schema = ring.schema(part)
            if schema is None:
                self.drop("too_many_names")
                continue
            if len(part) == len(names):
                self._rows.learn(names, schema)
            ticket = self._rows.next_ticket()
            packer = self._packer(len(part))
            at = ROWS_OFFSET + (ticket % ROWS + 1) * STRIDE - packer.size
            packer.pack_into(ring.buffer, at, *values[first : first + ROW_VALUES], now, step, self._rows.wait, schema, ticket + 1)
            self._rows.last_step = step
            self._rows.wait = NO_WAIT

    def _packer(self, count: int) -> struct.Struct:
        packer = self._packers.get(count)
        if packer is None:
            packer = self._packers[count] = struct.Struct(f"<{count}d{ROW_TAIL}q")
        return packer

    def _look_around(self) -> None:
        now = time.monotonic_ns()
        self._rows.look_at = now + LOOK_EVERY_NS
        if self._rows.lost:
            self.drop("internal_error", self._rows.lost)
            self._rows.lost = 0
        if self._look is not None:
            self._look(now)

    # -- what steps take along -------------------------------------------------------------------------------------------------

    def waited(self, nanoseconds: int) -> None:
        """Add to the wait for data of the step that is under way."""
        wait = self._rows.wait
        self._rows.wait = nanoseconds if wait == NO_WAIT else wait + nanoseconds

    def timed(self, section: Section) -> None:
        """The next step takes this section's time along."""
        if section not in self._timed:
            self._timed.append(section)
            self._rows.is_plain = 0

    def enter(self, phase: Phase) -> None:
        """Tell the node agent what the rank is about, so that it judges a pause by it."""
        if self._ring is not None:
            self._ring.words[Word.PHASE] = phase
            self._ring.words[Word.PHASE_SINCE] = time.monotonic_ns()

    # -- the rest --------------------------------------------------------------------------------------------------------------

    def event(self, word: str, *, step: int | None, attrs: dict[str, Any], lifecycle: bool = False) -> None:
        if self._ring is None:
            return
        last = self._rows.last_step
        at = step if isinstance(step, int) else (last if last >= 0 else None)
        event = {"event": word, "rank": self.rank, "step": at, "time_ns": time.time_ns(), "attrs": attrs}
        self._ring.event(event, lifecycle=lifecycle)

    def drop(self, reason: str, count: int = 1) -> None:
        if self._ring is not None:
            self._ring.drop(reason, count)

    @property
    def last_step(self) -> int:
        return int(self._rows.last_step)

    @property
    def is_off(self) -> bool:
        return self._ring is None

    def last_steps(self) -> list[int]:
        last = self._rows.last_step
        return list(range(max(0, last - 4), last + 1))

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
        self._rows.close()


def _nothing(*_words: Any, **_values: Any) -> None:
    """Where nothing is recorded."""
