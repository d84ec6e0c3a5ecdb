"""Where wall time went, by cause. Pure: attempts with their steps' times in, spans of time out, no second in two of them.

A run's wall time is the union of its attempts and of the gaps between them. Every span of it is divided among `CAUSES`, each cause taking from
what the causes before it left, so the parts always add up to the whole and no share can exceed 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
CAUSES = ("productive", "startup", "data", "stragglers", "checkpoints", "evaluations", "stalls", "recomputed", "down", "other")
"""`productive` is effective training time; the rest is lost. Each is `<cause>_seconds` in answers."""
BROKEN = ("failed", "lost", "preempted")
"""How an attempt ends that did not end by itself."""
STARTING = 20
"""Steps at the begin of an attempt that are not judged: compilation and cold caches make them slow (as `pace.Pace.warmup_records`)."""
OWN_CLOCK = 1.5
"""Steps that claim more than so many times the time in which they were reported were sent after the fact: their own durations are the clock."""
_AT = {cause: position for position, cause in enumerate(CAUSES)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One attempt. The arrays have an entry a timed step, in the order of the steps."""

    attempt: str
    start: float
    """Unix seconds, as `end`."""
    end: float
    """Of the last step, or of the process where that is known."""
    state: str = "running"
    ranks: int = 1
    is_hung: bool = False
    """Somebody said that it hung: what came after its last step is a stall."""
    step: Array
    finish: Array
    """When each step ended."""
    seconds: Array
    """How long its slowest rank says that it took."""
    waited: Array
    """Seconds of it that a rank waited for data."""
    counted: Array
    """Whether no later attempt did the step again."""
    planned: Mapping[str, Array] = field(default_factory=dict)
    """For `checkpoints` and `evaluations`: seconds of each step that a declared pause may have taken; infinite if it did not say."""
    dragged: Array | None = None
    """Seconds by which stragglers held up each step."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Disjoint spans of time in their order, each divided among `CAUSES` (a column each)."""

    begin: Array
    finish: Array
    ranks: Array
    """How many ranks were held by it."""
    seconds: Array

    @property
    def wall_seconds(self) -> float:
        return float(self.seconds.sum())

    def totals(self) -> dict[str, float]:
        return dict(zip(CAUSES, self.seconds.sum(axis=0).tolist(), strict=True))

    def binned(self, width: float) -> list[tuple[float, str, float, float]]:
        """Rows (begin of the bin, cause, seconds, seconds times ranks) of bins of `width` seconds; a span over an edge is divided."""
        first, last = np.floor(self.begin / width), np.floor(np.nextafter(self.finish, 0.0) / width)
        pieces = np.maximum(last - first, 0).astype(int) + 1
        which = np.repeat(np.arange(len(pieces)), pieces)
        bins = first[which] + (np.arange(len(which)) - np.repeat(np.cumsum(pieces) - pieces, pieces))
        inside = np.minimum(self.finish[which], (bins + 1) * width) - np.maximum(self.begin[which], bins * width)
        length = (self.finish - self.begin)[which]
        parts = self.seconds[which] * np.where(length > 0, inside / np.where(length > 0, length, 1.0), 0.0)[:, None]
        kinds, where = np.unique(bins, return_inverse=True)
        whole, weighed = (np.zeros((len(kinds), len(CAUSES))) for _ in range(2))
        np.add.at(whole, where, parts)
        np.add.at(weighed, where, parts * self.ranks[which, None])
        return [
            (float(kinds[row] * width), CAUSES[column], float(whole[row, column]), float(weighed[row, column]))
            for row, column in zip(*np.nonzero(whole > 0), strict=True)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """An attempt that did not end by itself, and what it cost."""

    attempt: str
    state: str
    at: float
    down_seconds: float | None
    """Until the next attempt began; None while there is none."""
    startup_seconds: float
    """From there to its first step."""
    recomputed_seconds: float
    """Steps of this attempt that had to be done again."""

    @property
    def recovery_seconds(self) -> float | None:
        """From the end to the next attempt's first step."""
        return None if self.down_seconds is None else self.down_seconds + self.startup_seconds

    @property
    def cost_seconds(self) -> float:
        return (self.recovery_seconds or 0.0) + self.recomputed_seconds


def lay_out(lives: Sequence[Life]) -> list[Life]:
    """The attempts on one clock, none over another: where two overlap the newer one counts. Steps that were sent after the fact
    (`OWN_CLOCK`) have no clock of their own, and are laid one after another before what follows."""
    laid: list[Life] = []
    limit = np.inf
    for life in reversed(lives):
        placed = _own_clock(life, limit) if _is_squeezed(life) else _clipped(life, limit)
        laid.append(placed)
        limit = placed.start
    return laid[::-1]


def _is_squeezed(life: Life) -> bool:
    span = float(life.finish[-1] - life.finish[0] + life.seconds[0])
    return float(life.seconds.sum()) > OWN_CLOCK * max(span, 1e-9)


def _own_clock(life: Life, limit: float) -> Life:
    end = min(float(life.finish[-1]), limit)
    finish = end - (life.seconds.sum() - np.cumsum(life.seconds))
    return replace(life, start=float(finish[0] - life.seconds[0]), end=end, finish=finish)


def _clipped(life: Life, limit: float) -> Life:
    begin, finish = (np.minimum(moments, limit) for moments in _spans(life))
    end = min(max(life.end, float(finish[-1])), limit)
    return replace(life, start=min(life.start, float(begin[0])), end=end, finish=finish, seconds=finish - begin)


def account(lives: Sequence[Life]) -> Ledger:
    """The ledger of a run's attempts, in their order. Every attempt has at least one timed step."""
    laid = lay_out(lives)
    usual = _Usual(_median(laid, _length), _median(laid, _work))
    pieces = [_attempt(life, usual) for life in laid]
    gaps = [_gap(one.end, later.start, later.ranks, "down") for one, later in itertools.pairwise(laid)]
    ordered = [piece for pair in itertools.zip_longest(pieces, gaps) for piece in pair if piece is not None]
    return Ledger(*(np.concatenate([getattr(piece, name) for piece in ordered]) for name in Ledger.__slots__))


def breaks(lives: Sequence[Life]) -> list[Break]:
    """What each broken attempt cost until the next one trained."""
    laid = lay_out(lives)
    found = []
    for life, later in itertools.zip_longest(laid, laid[1:]):
        if life is None or life.state not in BROKEN:
            continue
        begin, finish = _spans(life)
        found.append(
            Break(
                attempt=life.attempt,
                state=life.state,
                at=life.end,
                down_seconds=None if later is None else max(0.0, later.start - life.end),
                startup_seconds=0.0 if later is None else max(0.0, float(_spans(later)[0][0]) - later.start),
                recomputed_seconds=float((finish - begin)[~life.counted].sum()),
            )
        )
    return found


def lived_seconds(lives: Sequence[Life]) -> float:
    """What the attempts lived, without the gaps."""
    return sum(max(0.0, life.end - life.start) for life in lay_out(lives))


def _spans(life: Life) -> tuple[Array, Array]:
    """When each step began and ended: it begins not before the one before it ended, whatever it claims."""
    before = np.concatenate([[-np.inf], np.maximum.accumulate(life.finish)[:-1]])
    begin = np.maximum(life.finish - life.seconds, before)
    return begin, np.maximum(life.finish, begin)


def _length(life: Life) -> Array:
    begin, finish = _spans(life)
    return finish - begin


def _work(life: Life) -> Array:
    """What a step took without waiting for data and for stragglers."""
    return np.maximum(_length(life) - life.waited - (0.0 if life.dragged is None else life.dragged), 0.0)


@dataclass(frozen=True, slots=True)
class _Usual:
    """A step of this run in the median."""

    length: float
    work: float


def _median(laid: Sequence[Life], of: Callable[[Life], Array]) -> float:
    """Of settled steps that count, or of all that count where none has settled."""
    values = np.concatenate([of(life)[life.counted & (life.step >= life.step[0] + STARTING)] for life in laid])
    if not len(values):
        values = np.concatenate([of(life)[life.counted] for life in laid])
    return float(np.median(values)) if len(values) else 0.0


def _attempt(life: Life, usual: _Usual) -> Ledger:
    begin, finish = _spans(life)
    seconds = _divided(life, finish - begin, usual)
    steps = Ledger(begin, finish, np.full(len(begin), float(life.ranks)), seconds)
    between = _between(life, steps)
    head = _gap(life.start, float(begin[0]), life.ranks, "startup")
    tail = _gap(float(finish[-1]), life.end, life.ranks, "stalls" if life.is_hung else "other")
    parts = [head, steps, between, tail]
    joined = Ledger(*(np.concatenate([getattr(part, name) for part in parts]) for name in Ledger.__slots__))
    order = np.argsort(joined.begin, kind="stable")
    return Ledger(*(getattr(joined, name)[order] for name in Ledger.__slots__))


def _divided(life: Life, length: Array, usual: _Usual) -> Array:
    """Each step's time among the causes; a cause takes at most what is left."""
    seconds = np.zeros((len(length), len(CAUSES)))
    left = np.where(life.counted, length, 0.0)
    seconds[:, _AT["recomputed"]] = length - left
    is_starting = life.step < life.step[0] + STARTING
    _take(seconds, left, "startup", np.where(is_starting, np.maximum(left - usual.length, 0.0), 0.0))
    _take(seconds, left, "data", life.waited)
    if life.dragged is not None:
        _take(seconds, left, "stragglers", life.dragged)
    for cause, most in life.planned.items():
        _take(seconds, left, cause, np.minimum(most, np.maximum(left - usual.work, 0.0)))
    _take(seconds, left, "stalls", np.maximum(left - usual.work, 0.0))
    seconds[:, _AT["productive"]] = left
    return seconds


def _take(seconds: Array, left: Array, cause: str, wanted: Array) -> None:
    taken = np.minimum(wanted, left)
    seconds[:, _AT[cause]] += taken
    left -= taken


def _between(life: Life, steps: Ledger) -> Ledger:
    """The time inside the attempt that no step claims."""
    begin, finish = steps.finish[:-1], steps.begin[1:]
    kept = finish > begin
    seconds = np.zeros((int(kept.sum()), len(CAUSES)))
    seconds[:, _AT["other"]] = (finish - begin)[kept]
    return Ledger(begin[kept], finish[kept], np.full(len(seconds), float(life.ranks)), seconds)


def _gap(begin: float, finish: float, ranks: int, cause: str) -> Ledger:
    """One span of one cause; empty if it has no length."""
    count = int(finish > begin)
    seconds = np.zeros((count, len(CAUSES)))
    seconds[:, _AT[cause]] = finish - begin
    return Ledger(np.full(count, begin), np.full(count, finish), np.full(count, float(ranks)), seconds)
