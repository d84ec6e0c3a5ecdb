"""Ranks against each other, all at once: who has left its place among them, and how to name them in a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np
from numpy.typing import NDArray

from holter_monitor.stats import MAD_TO_SIGMA
from holter_monitor.stream.steps import Mask, Topology, Values

Reals = NDArray[np.float64]
Short = NDArray[np.float32]


def span(ranks: Iterable[int], limit: int = 8) -> str:
    """`0-7, 12, 16-31`; what is beyond `limit` ranges becomes "and n more"."""
    ordered = sorted(set(ranks))
    ranges: list[list[int]] = []
    for rank in ordered:
        if ranges and rank == ranges[-1][1] + 1:
            ranges[-1][1] = rank
        else:
            ranges.append([rank, rank])
    words = [str(low) if low == high else f"{low}-{high}" for low, high in ranges]
    if len(words) <= limit:
        return ", ".join(words)
    rest = sum(high - low + 1 for low, high in ranges[limit:])
    return ", ".join(words[:limit]) + f" and {rest} more"


def named(ranks: Sequence[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {span(ranks)}"


def by_node(ranks: Sequence[int], topology: Topology, share: float = 0.75) -> tuple[dict[str, list[int]], list[int]]:
    """`(nodes of two ranks and more of which at least `share` are among `ranks`, with these ranks; the ranks left over)`."""
    if len(ranks) < 2:
        return {}, list(ranks)
    sizes: dict[str, int] = {}
    for node in topology.node_of.values():
        sizes[node] = sizes.get(node, 0) + 1
    groups: dict[str, list[int]] = {}
    for rank in ranks:
        groups.setdefault(topology.node_of.get(rank, ""), []).append(rank)
    whole = {node: found for node, found in groups.items() if node and sizes[node] > 1 and len(found) >= share * sizes[node]}
    left = [rank for node, found in groups.items() if node not in whole for rank in found]
    return whole, sorted(left)


@dataclass(kw_only=True)
class RankShift:
    """One-sided CUSUM of each rank's distance from its own place, in a series whose common part has been taken out.

    The place (level) of each rank is learned first: pipeline stages differ by design. A step adds at most `cap` deviations, so a hiccup of one
    step counts little. The threshold allows for autocorrelated noise: a run of 16,384 ranks must not raise one false suspect a day. E. S. Page,
    Continuous inspection schemes, Biometrika 41 (1954). State: 180 bytes a rank.
    """

    least: float
    """The smallest shift worth finding, in the series' own unit."""
    warmup_steps: int = 32
    least_steps: int = 12
    """Steps that a shift must have lasted: the burst of a busy host is over by then."""
    cap: float = 5.0
    strictness: float = 22.0
    """Exponent of the mean time between false suspects, in steps of one rank."""
    kept_steps: int = 32
    count: int = 0
    level: Reals = field(default_factory=lambda: np.empty(0))
    high: Reals = field(default_factory=lambda: np.empty(0))
    """The CUSUM."""
    begun: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """The count at which the CUSUM last left zero."""
    history: Short = field(default_factory=lambda: np.empty((0, 0), np.float32))
    """The last distances, newest at `count % kept_steps`; while warming up the values themselves."""
    threshold: float = inf
    """Of the CUSUM, as it stood at the last step."""
    sigma: float = 0.0
    inflation: float = 1.0
    """How much the variance of a sum exceeds that of independent noise."""

    def update(self, values: Values) -> Mask | None:
        """`values` (ranks; NaN = absent). The ranks whose shift is proven; None while places are learned."""
        if len(values) != self.history.shape[1] if self.history.size else True:
            self._start(len(values))
        self.count += 1
        if self.count <= self.warmup_steps:
            self.history[self.count % self.kept_steps] = values
            if self.count == self.warmup_steps:
                self._settle()
            return None
        away = values - self.level
        away[np.isnan(away)] = 0.0
        self.history[self.count % self.kept_steps] = away
        limit = self.cap * self.sigma
        step = np.clip(away, -limit, limit)
        drift = max(0.5 * self.least, 0.8 * self.sigma)
        fresh = self.high <= 0.0
        self.begun[fresh] = self.count
        self.high += step
        self.high -= drift
        np.maximum(self.high, 0.0, out=self.high)
        threshold = self.strictness * self.inflation * self.sigma**2 / (2.0 * drift) + 2.0 * self.least
        np.minimum(self.high, 3.0 * threshold, out=self.high)
        np.clip(step, -2.0 * self.sigma, 2.0 * self.sigma, out=step)
        step[self.high > 0.5 * threshold] = 0.0
        self.level += step / min(self.count, 400)
        self.threshold = threshold
        if self.count % self.kept_steps == 0 and self.count >= 2 * self.kept_steps:
            self._renew()
        proven: Mask = (self.high > threshold) & (self.count - self.begun >= self.least_steps)
        return proven

    def lasts(self, rank: int) -> bool:
        """Whether the rank's shift holds in nearly all of its last steps: a burst of a few very slow ones is over by then."""
        last = np.sort(self.since(rank)[-self.least_steps :])
        return float(np.median(last)) >= self.least and float(last[len(last) // 6]) >= self.least

    def with_leaning(self, ranks: Sequence[int], topology: Topology) -> list[int]:
        """`ranks`, and those of their nodes that are on the way to being proven: a node's trouble shows on one of its ranks first."""
        nodes = {topology.node_of.get(rank) for rank in ranks} - {None}
        leaning = [int(rank) for rank in np.flatnonzero(self.high > 0.25 * self.threshold)]
        return sorted({*ranks, *(rank for rank in leaning if topology.node_of.get(rank) in nodes)})

    def shift(self, rank: int) -> float:
        """The rank's mean distance from its place since it left, over the kept steps."""
        since = self.since(rank)
        return float(since.mean()) if len(since) else 0.0

    def since(self, rank: int) -> Reals:
        """The rank's distances since its CUSUM left zero, oldest first, as far back as they are kept."""
        steps = int(min(self.count - self.begun[rank] + 1, self.kept_steps, self.count - self.warmup_steps))
        places = np.arange(self.count - steps + 1, self.count + 1) % self.kept_steps
        since: Reals = self.history[places, rank].astype(np.float64)
        return since

    def is_sliding(self, rank: int) -> bool:
        """Whether the shift grew gradually rather than at once: which of a ramp and a step fits the kept distances better."""
        places = np.arange(self.count - min(self.kept_steps, self.count - self.warmup_steps) + 1, self.count + 1) % self.kept_steps
        kept = np.clip(self.history[places, rank].astype(np.float64), -self.cap * self.sigma, None)
        away = np.median([kept[:-2], kept[1:-1], kept[2:]], axis=0)  # the hiccup of a single step would decide the fit
        steps = np.arange(len(away))
        best = {"step": np.inf, "ramp": np.inf}
        for at in range(len(away) - 2):
            up = steps >= at
            best["step"] = min(best["step"], float(((away - up * away[up].mean()) ** 2).sum()))
            ramp = np.maximum(steps - at + 1.0, 0.0)
            best["ramp"] = min(best["ramp"], float(((away - ramp * (ramp @ away) / (ramp @ ramp)) ** 2).sum()))
        return best["ramp"] < best["step"]

    def forget(self, ranks: Sequence[int]) -> None:
        """Their shift has been dealt with: they begin again from zero."""
        self.high[list(ranks)] = 0.0

    def _start(self, ranks: int) -> None:
        self.count = 0
        self.level, self.high = np.zeros(ranks), np.zeros(ranks)
        self.begun = np.zeros(ranks, np.int64)
        self.history = np.full((self.kept_steps, ranks), np.nan, np.float32)

    def _settle(self) -> None:
        learned = self._kept()
        seen = ~np.isnan(learned).all(axis=0)
        self.level[seen] = np.nanmedian(learned[:, seen], axis=0)
        away = learned[:, seen] - self.level[seen]
        # The level was fitted to these very steps, which takes some spread and about 2/n off the correlation; both are given back.
        self.sigma, self.inflation = self._noise(away, 2.0 / self.warmup_steps)
        self.sigma *= 1.03
        self.history[:] = 0.0
        self.begun[:] = self.count

    def _renew(self) -> None:
        """The noise of the last steps: larger noise counts at once, smaller noise slowly."""
        every = 1 + self.history.shape[1] // 1024  # a thousand ranks tell the noise of all
        sigma, inflation = self._noise(self._kept()[:, ::every], 0.0)
        self.sigma += (sigma - self.sigma) * (1.0 if sigma > self.sigma else 0.1)
        self.inflation += (inflation - self.inflation) * (1.0 if inflation > self.inflation else 0.1)

    def _kept(self) -> Reals:
        """The history in order of time, oldest first."""
        order = np.arange(self.count + 1, self.count + 1 + self.kept_steps) % self.kept_steps
        kept: Reals = self.history[order].astype(np.float64)
        return kept

    def _noise(self, away: Reals, echo_lost: float) -> tuple[float, float]:
        """`(standard deviation, inflation)` of distances (steps, ranks), outliers left out."""
        if not away.size:
            return 1e-6, 1.0
        away = away - np.nanmedian(away, axis=0)
        sigma = max(1e-6, float(MAD_TO_SIGMA * np.nanmedian(np.abs(away))))
        clipped = np.clip(np.nan_to_num(away), -3.0 * sigma, 3.0 * sigma)
        power = float((clipped**2).mean())
        echo = float((clipped[1:] * clipped[:-1]).mean()) / power + echo_lost if power > 0.0 else 0.0
        echo = min(max(echo, 0.0), 0.8)
        return sigma, (1.0 + echo) / (1.0 - echo)
