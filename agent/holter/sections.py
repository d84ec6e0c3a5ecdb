"""Timers inside a step and around its pauses."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from holter.ring import Phase

if TYPE_CHECKING:
    from holter.recorder import Recorder
    from holter.run import Run


MAX_SPANS = 256
"""Pairs of events that one section keeps of a step; a section entered more often is timed by its first ones."""


class Section:
    """Adds up the time spent inside it until the next step takes it. One object a name, entered again and again; may nest in others.

    Where the process uses a GPU, the time is the device's, between two events on the current stream: the host only queues the work and
    would be done with it at once.
    """

    __slots__ = ("_began", "_depth", "_mark", "_recorder", "is_communication", "metric", "nanoseconds", "spans")

    def __init__(self, recorder: Recorder, name: str, *, is_communication: bool) -> None:
        self.metric = f"section_{name}_seconds"
        self.is_communication = is_communication
        self.nanoseconds = 0
        self.spans: list[tuple[Any, Any]] = []
        self._recorder = recorder
        self._began = 0
        self._depth = 0
        self._mark: Any = None

    def __enter__(self) -> Section:
        self._depth += 1
        try:
            if self._depth == 1:
                self._mark = self._recorder.mark() if len(self.spans) < MAX_SPANS else None
                self._began = time.monotonic_ns()
        except Exception:  # noqa: BLE001  never raise into a training loop
            self._recorder.drop("internal_error")
        return self

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        try:
            if self._depth == 0:
                self._take()
        except Exception:  # noqa: BLE001  never raise into a training loop
            self._recorder.drop("internal_error")

    def _take(self) -> None:
        self.nanoseconds += time.monotonic_ns() - self._began
        end = self._recorder.mark() if self._mark is not None else None
        if end is not None:
            self.spans.append((self._mark, end))
        self._recorder.timed(self)


class Pause:
    """A checkpoint or an evaluation: tells the node agent that no step is due, and afterwards how long it took."""

    def __init__(self, run: Run, phase: Phase, word: str, attrs: dict[str, Any]) -> None:
        self._run, self._phase, self._word, self._attrs = run, phase, word, attrs
        self._began = 0

    def __enter__(self) -> Pause:
        self._began = time.monotonic_ns()
        self._run._enter(self._phase)
        return self

    def __exit__(self, *error: object) -> None:
        self._run._enter(Phase.STEP)
        self._run.event(self._word, **{**self._attrs, "seconds": (time.monotonic_ns() - self._began) / 1e9})
