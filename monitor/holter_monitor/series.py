"""Series for people's eyes: thinned to as many points as fit a screen without losing a spike. Pure numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Series:
    """Columns of equal length, in the order of attempts and steps."""

    attempt: NDArray[Any]
    step: NDArray[Any]
    time_ns: NDArray[Any]
    value: NDArray[Any]

    def __len__(self) -> int:
        return len(self.step)

    def take(self, index: NDArray[Any]) -> Series:
        return Series(self.attempt[index], self.step[index], self.time_ns[index], self.value[index])


def thin(series: Series, max_points: int) -> Series:
    """At most `max_points` (4 or more) of the points: the first and last, and of each bucket of equal count the lowest and the highest (a value that is
    not finite counts as both: it is what one looks for). Buckets never span attempts' rewinds badly: order is kept."""
    total = len(series)
    if total <= max_points:
        return series
    buckets = max(1, (max_points - 2) // 2)
    edges = np.linspace(0, total, buckets + 1).astype(np.int64)[:-1]
    sizes = np.diff(np.append(edges, total))
    values = series.value.astype(np.float64, copy=False)
    odd = ~np.isfinite(values)
    low = _extreme(np.where(odd, -np.inf, values), edges, sizes, np.minimum)
    high = _extreme(np.where(odd, np.inf, values), edges, sizes, np.maximum)
    return series.take(np.unique(np.concatenate(([0], low, high, [total - 1]))))


def _extreme(values: NDArray[Any], edges: NDArray[Any], sizes: NDArray[Any], choose: np.ufunc) -> NDArray[Any]:
    """The index of each bucket's first extreme value."""
    best = np.repeat(choose.reduceat(values, edges), sizes)
    hits = np.flatnonzero(values == best)
    bucket = np.searchsorted(edges, hits, side="right") - 1
    return hits[np.unique(bucket, return_index=True)[1]]


def numbers(values: NDArray[Any]) -> list[Any]:
    """The values for JSON: a number that is not finite as its string, a masked one as None."""
    if isinstance(values, np.ma.MaskedArray) and values.mask is not np.ma.nomask and values.mask.any():
        return [None if value is None else named(value) for value in values.tolist()]
    plain = np.asarray(values)
    if plain.dtype == np.float32:  # 2.3 as f4 is 2.299999952316284: the shortest number that reads back the same is enough
        plain = np.array([float(str(value)) for value in plain]) if len(plain) < 2_000 else plain.astype(np.float64).round(8)
    if plain.dtype.kind != "f" or np.isfinite(plain).all():
        return list(plain.tolist())
    return [named(value) for value in plain.tolist()]


def named(value: Any) -> Any:
    """A float that JSON cannot say, by its name."""
    if isinstance(value, float) and not np.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124
    return value


def document(series: Series, names: Mapping[int, str]) -> dict[str, Any]:
    """The columns of a series as a REST answer: `attempts` names the attempts, `attempt` is a position in it."""
    present, position = np.unique(series.attempt, return_inverse=True)
    return {
        "attempts": [names.get(int(number), str(number)) for number in present],
        "attempt": position.tolist(),
        "step": series.step.tolist(),
        "time": (series.time_ns / 1e9).round(6).tolist(),
        "value": numbers(series.value),
    }
