"""What detectors see: a step of one attempt with the values of all its ranks, a point of one series, a sample of one host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np
from holter.frame import Event
from numpy.typing import NDArray

from holter_monitor.reference import Reference

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]
Ranks = NDArray[np.int32]
MAX_RANKS = 131_072
ONE_RANK: Ranks = np.zeros(1, np.int32)
ALL_PRESENT: Mask = np.ones(1, np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What is known of a run before its first step."""

    run: str
    project: str = ""
    name: str = ""
    world_size: int = 1
    config: Mapping[str, Any] = field(default_factory=dict)
    """Whatever `holter.init(config=…)` said; `total_steps` in it is the planned length."""
    reference: Reference | None = None
    """The run that this one is held against."""


@dataclass(slots=True)
class Topology:
    """Where each rank of the attempt sits: from `rank_started` events, or else from the first frame that carries it."""

    node_of: dict[int, str] = field(default_factory=dict)
    mesh_of: dict[int, dict[str, int]] = field(default_factory=dict)
    gpu_of: dict[int, str] = field(default_factory=dict)

    def learn(self, event: Event, node: str) -> None:
        rank, attrs = event.get("rank"), event.get("attrs") or {}
        if event["event"] != "rank_started" or not isinstance(rank, int) or not 0 <= rank < MAX_RANKS:
            return
        self.node_of[rank] = node
        mesh = attrs.get("mesh")
        if isinstance(mesh, dict):
            self.mesh_of[rank] = {str(axis): place for axis, place in list(mesh.items())[:16] if isinstance(place, int)}
        if attrs.get("gpu") is not None:
            self.gpu_of[rank] = str(attrs["gpu"])[:200]

    def place(self, ranks: Sequence[int], node: str) -> None:
        for rank in ranks:
            if rank not in self.node_of and 0 <= rank < MAX_RANKS:
                self.node_of[rank] = node

    def nodes(self, ranks: Sequence[int]) -> tuple[str, ...]:
        """The nodes of these ranks, each once, sorted."""
        return tuple(sorted({self.node_of[rank] for rank in ranks if rank in self.node_of}))


@dataclass(slots=True)
class Point:
    """One finite value of one series (the mean over the ranks that logged it), as `update` of a detector receives it."""

    metric: str
    step: int
    value: float
    time: float
    """Unix seconds."""
    attempt: str
    words: frozenset[str]
    """The events declared at this step ("resume", "data_stage_change", …)."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A frame that came in, whatever was in it: a sign of life of a node agent."""

    node: str
    boot: str
    """The agent's life; another one means that it was started again."""
    attempt: str
    received: float
    """Unix seconds, the collector's clock, from the frame log."""
    rows: int
    words: tuple[str, ...]
    """The words of the frame's events."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One row that a node agent took of its host (`rank = -1`)."""

    node: str
    attempt: str
    step: int
    """The last step that the node's ranks had reached, -1 before the first."""
    time: float
    values: dict[str, float]


class Step:
    """One step of one attempt, complete or past its deadline: for each metric one value a rank, or none.

    `column` gives the arrays over `ranks`; `mean` and `median` the number over those ranks whose value is finite. A metric that no rank
    logged is None; one that ranks logged, none of them finite, is NaN. A record of a log is a step with one rank.
    """

    __slots__ = (
        *("_matrix", "_means", "_present", "_rows", "attempt", "beat", "events", "missing", "number"),
        *("paced_by", "ranks", "time", "topology", "words"),
    )

    def __init__(
        self, number: int, *, time: float = 0.0, attempt: str = "", events: Sequence[Event] = (), topology: Topology | None = None
    ) -> None:
        self.number = number
        self.time = time
        self.attempt = attempt
        self.events = list(events)
        self.words = frozenset(event["event"] for event in events) if events else NO_WORDS
        self.topology = topology or Topology()
        self.ranks: Ranks = ONE_RANK
        """The attempt's ranks, ascending; columns have this length."""
        self.missing: Ranks = ONE_RANK[:0]
        """Ranks that were expected and had not reached this step when it was closed."""
        self.paced_by: object = None
        """The `Pace` that has taken this step in, and what it made of it: four detectors ask, one answer is worked out."""
        self.beat: Any = None
        self._means: dict[str, float] = {}
        self._rows: dict[str, int] = {}
        self._matrix: Values | None = None
        self._present: Mask | None = None

    @classmethod
    def of(cls, number: int, values: Mapping[str, float], *, time: float = 0.0, attempt: str = "", events: Sequence[Event] = ()) -> Step:
        """A step of one rank: one record of a log. A value that was not logged is not in `values`; a NaN that was logged is."""
        step = cls(number, time=time, attempt=attempt, events=events)
        step._means = dict(values)
        return step

    @classmethod
    def of_ranks(
        cls, number: int, ranks: Ranks, rows: Mapping[str, int], matrix: Values, present: Mask, *, time: float = 0.0, attempt: str = ""
    ) -> Step:
        """A step of many ranks: `matrix` and `present` are (metrics, ranks), `rows` names the metrics' places in them."""
        step = cls(number, time=time, attempt=attempt)
        step.ranks = ranks
        logged: list[bool] = np.any(present, axis=1).tolist()
        step._rows = {name: row for name, row in rows.items() if row < len(logged) and logged[row]}
        step._matrix, step._present = matrix, present
        return step

    def say(self, events: Sequence[Event]) -> None:
        """Adds events to this step."""
        self.events.extend(events)
        self.words = self.words | {event["event"] for event in events}

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics that at least one rank logged."""
        return list(self._rows if self._matrix is not None else self._means)

    def column(self, metric: str) -> tuple[Values, Mask] | None:
        """`(values, present)` over `ranks`; None if no rank logged the metric. A value that is not present is NaN."""
        if self._matrix is None or self._present is None:
            value = self._means.get(metric)
            return None if value is None else (np.array([value]), ALL_PRESENT)
        row = self._rows.get(metric)
        return None if row is None else (self._matrix[row], self._present[row])

    def non_finite(self, metric: str) -> Ranks:
        """The ranks whose value was logged and is NaN or infinite."""
        if self._matrix is None:
            value = self._means.get(metric)
            return self.ranks[:0] if value is None or isfinite(value) else self.ranks
        column = self.column(metric)
        if column is None:
            return self.ranks[:0]
        return self.ranks[column[1] & ~np.isfinite(column[0])]

    def mean(self, metric: str) -> float | None:
        value = self._means.get(metric)
        if value is None and self._matrix is not None:
            finite = self._finite(metric)
            if finite is not None:
                value = self._means[metric] = float(finite.mean()) if finite.size else float("nan")
        return value

    def median(self, metric: str) -> float | None:
        if self._matrix is None:
            return self._means.get(metric)
        finite = self._finite(metric)
        if finite is None:
            return None
        return float(np.median(finite)) if finite.size else float("nan")

    def _finite(self, metric: str) -> Values | None:
        column = self.column(metric)
        if column is None:
            return None
        values, present = column
        return values[present & np.isfinite(values)]


NO_WORDS: frozenset[str] = frozenset()
