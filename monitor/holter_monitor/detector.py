"""The detector port: what the engine calls, and what a detector may leave out.

A detector is a dataclass in a file of its own plus its line in `DETECTORS`. It has a `kind` and at least one of these methods; the engine
calls those that are there, in the order of the records::

    metric = "loss"                                 with `update`: the series to follow
    update(point: Point)                            each finite value of that series (mean over ranks)
    observe(step: Step)                             each step, with all ranks
    receive(arrival: Arrival)                       each frame of a node agent, also an empty one: a sign of life
    hear(event: Event, topology: Topology)          each event, as it arrives
    sample(sample: Sample)                          each row of a host, as it arrives
    tick(now: float)                                the time, every few seconds, also when nothing arrives
    finish()                                        the run is over: last words
    begin(run: RunFacts)                            before the first record; answers nothing

Each answers with a `Finding`, several, or None. Parameters are dataclass fields with defaults. State is fields declared
`field(init=False, …)`, made of numbers, strings, lists, dicts, deques, numpy arrays and dataclasses of these: a snapshot keeps that.
No method reads a clock, does I/O, or keeps a reference to what it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Protocol, TypeAlias

from holter_monitor.findings import Finding

Answer: TypeAlias = "Finding | Iterable[Finding] | None"


class Detector(Protocol):
    """The least that a detector has; see the module's docstring for the methods that the engine looks for."""

    kind: ClassVar[str]


DetectorMaker: TypeAlias = Callable[[], Detector]
"""A detector's class, or a `functools.partial` of it with other parameters."""
