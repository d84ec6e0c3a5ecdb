"""A reference run, reduced to what another run is held against: its loss in cells of equal tokens (or steps), its evaluations, its pace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from holter.tensors import Layout
from numpy.typing import ArrayLike, NDArray

CELL_RECORDS = 64
"""Records of the reference in one cell: enough for a mean that tells 0.5 % at the noise of language-model losses."""
STALL_RATIO = 2.0
"""A record that costs so many times the level, i.e. at less than half the throughput, is a stall."""
PACES = ("tokens_per_second", "samples_per_second", "step_time_seconds")
"""What a pace is taken from, the first that was logged."""


@dataclass(slots=True, kw_only=True)
class Pacing:
    """How the reference ran, in cells of equal steps. `edges` are the cells' first steps and the step after the last."""

    basis: str
    edges: NDArray[np.float64]
    levels: NDArray[np.float64]
    """Seconds for a unit of work: the median record of each cell."""
    stalls: NDArray[np.int64]
    """Records beyond `STALL_RATIO` of the level."""
    lost: NDArray[np.float64]
    """What these cost beyond it, in records at the level."""

    def cell(self, step: int) -> int:
        """The cell that holds `step`; -1 before the first and after the last."""
        found = int(np.searchsorted(self.edges, step, side="right")) - 1
        return found if 0 <= found < len(self.levels) else -1


def pacing(basis: str, steps: ArrayLike, values: ArrayLike) -> Pacing | None:
    """The pace of a run that logged `values` of `basis` at `steps`. None when it is too short."""
    at, value = np.asarray(steps, float), np.asarray(values, float)
    usable = np.isfinite(at) & np.isfinite(value) & (value > 0.0)
    order = np.argsort(at[usable], kind="stable")
    at, value = at[usable][order], value[usable][order]
    cells = len(at) // CELL_RECORDS
    if cells < 2:
        return None
    at, value = at[: cells * CELL_RECORDS].reshape(cells, -1), value[: cells * CELL_RECORDS].reshape(cells, -1)
    costs = value if basis.endswith("seconds") else 1.0 / value
    levels = np.median(costs, axis=1)
    beyond = costs / levels[:, None] - 1.0
    is_stall = beyond > STALL_RATIO - 1.0
    return Pacing(
        basis=basis,
        edges=np.append(at[:, 0], at[-1, -1] + 1.0),
        levels=levels,
        stalls=is_stall.sum(axis=1),
        lost=np.where(is_stall, beyond, 0.0).sum(axis=1),
    )


@dataclass(slots=True, kw_only=True)
class Reference:
    """`edges` are the cells' borders, ascending, one more than there are `means` (of the loss) and `errors` (of each mean)."""

    name: str
    unit: str = "tokens"
    """What the two runs are aligned by: "tokens" consumed, or "step" where the reference logged no tokens."""
    edges: NDArray[np.float64]
    means: NDArray[np.float64]
    errors: NDArray[np.float64]
    evaluations: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Metric → (position, value), ascending."""
    pacing: Pacing | None = None
    precision: dict[str, str] = field(default_factory=dict)
    """Family of parameters -> dtype, where the reference was watched."""

    def cell(self, position: float) -> int:
        """The cell that holds `position`; -1 before the first and after the last."""
        found = int(np.searchsorted(self.edges, position, side="right")) - 1
        return found if 0 <= found < len(self.means) else -1

    def evaluation(self, metric: str, position: float) -> float | None:
        """The reference's value of `metric` at `position`, between its neighbours; None outside of what it evaluated."""
        points = self.evaluations.get(metric, [])
        if len(points) < 2 or not points[0][0] <= position <= points[-1][0]:
            return None
        at, values = zip(*points, strict=True)
        return float(np.interp(position, at, values))


def build(
    name: str,
    positions: ArrayLike,
    losses: ArrayLike,
    *,
    unit: str = "tokens",
    evaluations: Iterable[tuple[str, float, float]] = (),
    pacing: Pacing | None = None,
    precision: Mapping[str, str] | None = None,
) -> Reference | None:
    """The reference of a run's `losses` at `positions` (both as long as it has records; any order; non-finite ones are left out) and of
    its `evaluations` (metric, position, value). None when neither loss nor pace is long enough to hold anything against, and neither an evaluation
    nor a dtype is known."""
    at, loss = np.asarray(positions, float), np.asarray(losses, float)
    usable = np.isfinite(at) & np.isfinite(loss)
    order = np.argsort(at[usable], kind="stable")
    at, loss = at[usable][order], loss[usable][order]
    cells = len(at) // CELL_RECORDS
    dtypes = dict(precision or {})
    table: dict[str, list[tuple[float, float]]] = {}
    for metric, position, value in evaluations:
        table.setdefault(metric, []).append((position, value))
    if cells < 2:
        if pacing is None and not dtypes and not table:
            return None
        edges = means = errors = np.empty(0)
    else:
        at, loss = at[: cells * CELL_RECORDS].reshape(cells, -1), loss[: cells * CELL_RECORDS].reshape(cells, -1)
        edges, means, errors = np.append(at[:, 0], at[-1, -1]), loss.mean(axis=1), deviation(loss) / np.sqrt(CELL_RECORDS)
    return Reference(
        name=name,
        unit=unit,
        edges=edges,
        means=means,
        errors=errors,
        evaluations={metric: sorted(points) for metric, points in table.items()},
        pacing=pacing,
        precision=dtypes,
    )


def deviation(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """The standard deviation of each row about its own trend: from differences of neighbours, whose median no spike moves."""
    steps = np.abs(np.diff(losses, axis=-1))
    return np.asarray(1.4826 * np.median(steps, axis=-1) / np.sqrt(2.0))


def dtypes(table: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    """A watched rank's tensors (the `table` of its `watch` event) by family: the dtype of most of its elements, and how many it has. Raises
    `ValueError` for what is no table."""
    counts: dict[str, Counter[str]] = {}
    for tensor in Layout.from_json(table).tensors:
        counts.setdefault(tensor.family, Counter())[tensor.dtype] += tensor.size
    return {family: (count.most_common(1)[0][0], sum(count.values())) for family, count in counts.items()}
