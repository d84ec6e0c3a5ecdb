"""Between `Run` and the ring: what a step needs that is not plain, and everything that is not a step."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from holter.garbage import GarbageWatch
from holter.ring import NO_WAIT, ROW_TAIL, ROW_VALUES, ROWS, ROWS_OFFSET, STRIDE, Phase, Ring, State, Word
from holter.scalars import Cuda, Device, DeviceKind, ScalarTap, Spans
from holter.values import NotANumberError, is_late, is_on_device, one_element, to_float, whole

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

    def __init__(
        self,
        ring: Ring | None,
        rank: int,
        look: Callable[[int], None] | None = None,
        *,
        writer: type[Any] = RowWriter,
        device: DeviceKind = Cuda,
    ) -> None:
        self.rank = rank
        self._device = device
        self._tap: ScalarTap | None = None
        self._timer: Device | None = None
        self._is_on_device = False
        self._ring = ring
        self._look = look
        self._garbage: GarbageWatch | None = None
        self._timed: list[Section] = []
        self._noted: dict[str, float] = {}
        self._packers: dict[int, struct.Struct] = {}
        if ring is None:
            self._rows = writer(_NO_ROWS, 0, 1, STRIDE, _nothing, _nothing, NO_WAIT)
            self._rows.close()
        else:
            self._rows = writer(ring.buffer, ROWS_OFFSET, ROWS, STRIDE, self._general, self._look_around, NO_WAIT)
            self._rows.look_at = time.monotonic_ns() + LOOK_EVERY_NS
            self._garbage = GarbageWatch().start()
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
        found, scalars = self._sorted(values)
        if self._noted:
            found, self._noted = {**self._noted, **found}, {}
        spans = self._add_timed(found)
        if scalars or spans or self._is_waiting():
            self._queue(number, now, scalars, found, spans)
        else:
            self._write(number, now, found)

    def _queue(self, step: int, now: int, scalars: dict[str, Any], found: dict[str, float], spans: Spans) -> None:
        """Behind the steps whose device values are still on their way: rows stay in the order of the steps."""
        assert self._ring is not None
        self._ring.words[Word.REACHED], self._ring.words[Word.REACHED_AT] = step, now
        tap = self._tapped()
        self._rows.last_step = step
        if self._rows.wait != NO_WAIT:
            found["data_wait_seconds"], self._rows.wait = self._rows.wait / 1e9, NO_WAIT
        if not tap.put(step, now, scalars, found, spans=spans):
            self.drop("device_busy", len(scalars))
            tap.put(step, now, {}, found, spans=spans)
        self._count_unread(tap)
        self._rows.is_plain = 0 if tap.under_way else 1

    def _count_unread(self, tap: ScalarTap) -> None:
        if unread := tap.take_unread():
            self.drop("value_not_a_number", unread)

    def _tapped(self) -> ScalarTap:
        if self._tap is None:
            self._tap = ScalarTap(self._device, self._write)
        return self._tap

    def mark(self) -> Any:
        """A moment in the device's own time, to be asked for later; None where this process uses no device, or captures a graph."""
        if not (self._is_on_device or self._device.is_used()):
            return None
        self._is_on_device = True
        device = self._timer = self._timer or self._device()
        if self._ring is None or device.is_capturing():
            return None
        spare = self._tap.spare if self._tap is not None else None
        event = spare.pop() if spare else device.timing_event()
        event.record()
        return event

    def _is_waiting(self) -> bool:
        return self._tap is not None and self._tap.under_way > 0

    def _number(self, step: Any) -> int:
        try:
            if type(step) is not int:
                step = self._rows.last_step + 1 if step is None else int(to_float(step))
        except (NotANumberError, ValueError, OverflowError):
            step = self._rows.last_step + 1
        return max(-(2**62), min(2**62, int(step)))

    def _sorted(self, values: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
        """`(what can be read now, what a device has still to tell)`; what is no number is counted and left out."""
        found: dict[str, float] = {}
        scalars: dict[str, Any] = {}
        for name, value in values.items():
            try:
                local = whole(value)
                if is_on_device(local):
                    scalars[name[:_MAX_NAME]] = one_element(local)
                elif is_late(local):
                    scalars[name[:_MAX_NAME]] = local
                else:
                    found[name[:_MAX_NAME]] = to_float(local)
            except NotANumberError:
                self.drop("value_not_a_number")
        return found, scalars

    def _add_timed(self, found: dict[str, float]) -> Spans:
        """Put the sections' times into `found`; those that the device will tell come back as spans. Own work is their sum less communication."""
        own = 0
        spans: list[tuple[str, Any, Any]] = []
        for section in self._timed:
            if section.spans:
                names = (section.metric,) if section.is_communication else (section.metric, "compute_seconds")
                spans += [(name, first, last) for first, last in section.spans for name in names]
                section.spans = []
            else:
                found[section.metric] = section.nanoseconds / 1e9
                own += 0 if section.is_communication else section.nanoseconds
            section.nanoseconds = 0
        if own:
            found.setdefault("compute_seconds", own / 1e9)
        self._timed.clear()
        self._rows.is_plain = 1
        return tuple(spans)

    def _write(self, step: int, now: int, found: dict[str, float]) -> None:
        """As many rows as the values need, most often one."""
        ring = self._ring
        if ring is None:
            return
        names, values = tuple(found), list(found.values())
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
            self._rows.last_step = max(step, self._rows.last_step) if self._is_waiting() else step
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
        if self._ring is not None and self._garbage is not None:
            self._garbage.tell(self._ring)
        if self._look is not None:
            self._look(now)

    # -- what steps take along -------------------------------------------------------------------------------------------------

    def waited(self, nanoseconds: int) -> None:
        """Add to the wait for data of the step that is under way."""
        wait = self._rows.wait
        self._rows.wait = nanoseconds if wait == NO_WAIT else wait + nanoseconds

    def note(self, name: str, value: float) -> None:
        """The next step takes this along."""
        self._noted[name] = value
        self._rows.is_plain = 0

    def noted(self, name: str) -> float | None:
        return self._noted.get(name)

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

    def _complete(self) -> None:
        """Give the device a tenth of a second to deliver the last steps; what it has not is told as missing, not as zero."""
        if self._tap is None:
            return
        until = time.monotonic() + 0.1
        while self._tap.under_way and time.monotonic() < until:
            self._tap.poll()
            time.sleep(0.001)
        self._count_unread(self._tap)
        for pending in self._tap.take_incomplete():
            self.drop("device_busy", len(pending.names) + len(pending.late))
            self._write(pending.step, pending.time_ns, pending.known)

    def close(self, state: State) -> None:
        """Say how it ended and write no more."""
        self._complete()
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
        if self._garbage is not None:
            self._garbage.stop()


def _nothing(*_words: Any, **_values: Any) -> None:
    """Where nothing is recorded."""
