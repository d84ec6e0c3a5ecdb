"""Memory that grows and never comes back, with a forecast of the step at which it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.floors import Floors
from holter_monitor.stream.ranks import named
from holter_monitor.stream.steps import Sample, Step

USED, RESERVED, ALLOCATED = "gpu_memory_used_bytes", "gpu_memory_reserved_bytes", "gpu_memory_allocated_bytes"
"""A GPU's memory as the driver, PyTorch's allocator and the tensors have it; the last two where the training script logs them."""
WATCHED = {
    "process_memory_rss_bytes": "",
    "process_memory_shared_bytes": "",
    ALLOCATED: "gpu_memory_total_bytes",
    RESERVED: "gpu_memory_total_bytes",
    USED: "gpu_memory_total_bytes",
}
"""Metrics of a rank that must not grow for ever, and where their ceiling is logged."""
TRENDS = (6, 8, 10, 13)
"""Numbers of blocks over which a trend is looked for: fast leaks show in the short ones."""


@dataclass(slots=True)
class Growth:
    onset: int
    first: float
    """Bytes at the onset."""
    said: float
    """Bytes when it was last said."""
    calm: int = 0
    is_urgent: bool = False


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is left until the ceiling at the present rate; None without a ceiling or a rise."""

    per_step: float
    """Bytes."""
    blocks: float | None = None
    steps: float | None = None
    seconds: float | None = None
    """None where the records have no times."""


@dataclass(kw_only=True)
class MemoryGrowth:
    """Mann-Kendall test on the floors of each rank's memory and of each host's; vectorised over ranks.

    H. B. Mann, Nonparametric tests against trend, Econometrica 13 (1945). Told from warm-up (one jump) by the largest step's share of the
    growth. Of a GPU whose allocator's figures are logged (`gpu_memory_allocated_bytes`, `gpu_memory_reserved_bytes`), fragmentation is told from
    a leak. Critical when the forecast ends within `page_blocks`. Cost: under 1 µs a record and rank series of one, 40 µs for 16,384 ranks.
    """

    kind: ClassVar[str] = "memory_growth"
    least_growth: float = 0.0035
    """Relative growth over the trend's blocks that is worth a word."""
    agreement: float = 0.9
    """Share of all pairs of blocks that must rise."""
    largest_step: float = 0.5
    """More of the growth than this in one block is a jump (a cache filled, a bucket grown), not a leak."""
    least_deviations: float = 5.0
    """Growth in units of the spread of its blocks' steps."""
    least_bytes: float = 1e8
    """Growth below this is an allocator finding its size, whatever its share of a small process."""
    far_seconds: float = 7 * 86_400.0
    """A forecast end further away than this is recorded and warns nobody."""
    page_blocks: float = 6.0
    """Forecast end, in blocks of 100 records, from which somebody should act now …"""
    page_seconds: float = 3600.0
    """… or in seconds, whichever comes first."""
    floors: dict[str, Floors] = field(init=False, default_factory=dict)
    ceilings: dict[str, float] = field(init=False, default_factory=dict)
    """Bytes that are there: a GPU's memory, a host's."""
    growing: dict[str, Growth] = field(init=False, default_factory=dict)
    step: int = field(init=False, default=-1)

    def observe(self, step: Step) -> list[Finding] | None:
        said: list[Finding] = []
        self.step = step.number
        for metric, ceiling in WATCHED.items():
            if step.mean(metric) is None:
                continue
            if ceiling and (total := step.mean(ceiling)):
                self.ceilings[metric] = total
            floors = self.floors.get(metric)
            if floors is None:
                floors = self.floors[metric] = Floors()
            if floors.take(step, metric):
                said += self._judge(metric, step)
        return said or None

    def sample(self, sample: Sample) -> list[Finding] | None:
        """A host: what is in use is what is not available."""
        total, free = sample.values.get("host_memory_total_bytes"), sample.values.get("host_memory_available_bytes")
        if not total or free is None or not 0.0 <= free <= total:
            return None
        name = f"host_memory_used_bytes@{sample.node}"
        self.ceilings[name] = total
        self.ceilings["process_memory_rss_bytes"] = self.ceilings["process_memory_shared_bytes"] = total
        if not self.floors.setdefault(name, Floors()).push(np.array([total - free]), sample.step, sample.time):
            return None
        return self._judge(name, None)

    def _judge(self, name: str, step: Step | None) -> list[Finding]:
        floors = self.floors[name]
        grows = self._grows(floors, by_time="@" in name) & self._is_told_here(name, floors)
        said = []
        grown = np.flatnonzero(grows).tolist()
        if step is not None and len(grown) >= max(2, 0.75 * len(grows)):
            said += self._say(name, "run", grown, floors)
        else:
            for rank in grown[:64]:
                scope = f"rank {rank}" if step is not None and len(grows) > 1 else name.partition("@")[2] or "run"
                said += self._say(name, scope if "@" not in name else f"node {scope}", [rank], floors)
        return said + self._ended(name, grows, floors)

    def _is_told_here(self, name: str, floors: Floors) -> NDArray[np.bool_]:
        """One growth is told once, by the series that says most: by what is allocated; by what is reserved where that alone grows, which is
        fragmentation; by what the driver sees only where the allocator's own figures are not logged."""
        ranks = floors.floors.shape[1]
        allocated = self.floors.get(ALLOCATED)
        if name == USED and RESERVED in self.floors:
            return np.zeros(ranks, np.bool_)
        if name == RESERVED and allocated is not None and allocated.floors.shape[1] == ranks:
            blocks = TRENDS[-1]
            return allocated.growth(blocks) < 0.5 * floors.growth(blocks)
        return np.ones(ranks, np.bool_)

    def _grows(self, floors: Floors, *, by_time: bool) -> NDArray[np.bool_]:
        """Which ranks' floors rise steadily over any of the trends' lengths; a block that took longer may have risen more."""
        grows = np.zeros(floors.floors.shape[1], np.bool_)
        smooth = np.fmin(floors.floors[1:], floors.floors[:-1])
        for length in TRENDS:
            if len(smooth) < length:
                break
            blocks = smooth[-length:]
            rising = sum(np.sign(blocks[i + 1 :] - blocks[i]).sum(axis=0) for i in range(length - 1))
            growth = blocks[-1] - blocks[0]
            steps = np.diff(blocks, axis=0)
            spans = floors.spans(length, by_time=by_time)
            due, third = (spans / spans.sum())[:, None], length // 3
            noise = (steps - growth * due).std(axis=0)
            jump = self.largest_step + (1.0 - self.largest_step) * np.maximum(due - 1.0 / len(due), 0.0)
            with np.errstate(invalid="ignore"):
                grows |= (
                    (rising >= self.agreement * length * (length - 1) / 2)
                    & (growth > self.least_growth * blocks[0])
                    & (steps < jump * growth).all(axis=0)
                    & (growth > self.least_deviations * noise)
                    & (growth > self.least_bytes)
                    & ((blocks[-1] - blocks[-1 - third]) * spans[:third].sum() > 0.5 * (blocks[third] - blocks[0]) * spans[-third:].sum())
                )
        return grows

    def _say(self, name: str, scope: str, ranks: list[int], floors: Floors) -> list[Finding]:
        key = f"{name}|{scope}"
        now = float(np.nanmedian(floors.floors[-1, ranks]))
        growth = self.growing.get(key)
        if growth is None:
            blocks = np.nanmedian(floors.floors[:, ranks], axis=1)
            low = len(blocks) - 1 - int(np.argmin(blocks[::-1]))
            start = list(floors.starts)[-len(blocks) :][low]
            growth = self.growing[key] = Growth(start, float(blocks[low]), now)
            return [self._finding(name, scope, ranks, floors)]
        growth.calm = 0
        forecast = self._forecast(name, ranks, floors)
        grown = now >= growth.first + 1.5 * (growth.said - growth.first)
        if not grown and (growth.is_urgent or not self._is_urgent(forecast)):
            return []
        growth.is_urgent = growth.is_urgent or self._is_urgent(forecast)
        growth.said = now
        return [self._finding(name, scope, ranks, floors)]

    def _ended(self, name: str, grows: NDArray[np.bool_], floors: Floors) -> list[Finding]:
        said = []
        for key, growth in list(self.growing.items()):
            metric, _, scope = key.partition("|")
            if metric != name:
                continue
            ranks = [int(scope[5:])] if scope.startswith("rank ") else list(range(len(grows)))
            if len(ranks) and ranks[-1] < len(grows) and not grows[ranks].any():
                growth.calm += 1
            if growth.calm >= 3 or not len(ranks) or ranks[-1] >= len(grows):
                said.append(self._finding(name, scope, ranks, floors, end_step=self.step))
                del self.growing[key]
        return said

    def _forecast(self, name: str, ranks: list[int], floors: Floors) -> Forecast:
        """A process grows with its steps, a host with the time: the slope is taken along that, whatever lies between two records."""
        blocks = np.nanmedian(floors.floors[-8:, ranks].astype(np.float64), axis=1)
        steps, seconds = (floors.spans(len(blocks), by_time=by_time) for by_time in (False, True))
        is_timed = floors.seconds > 0.0
        along = seconds if "@" in name and is_timed else steps
        rate = _slope(blocks, along)
        per_step = rate * float(along.sum() / steps.sum()) if len(steps) else 0.0
        ceiling = self.ceilings.get(name)
        if ceiling is None or rate <= 0.0:
            return Forecast(per_step)
        gone = floors.since[int(along is seconds)]
        left = max(0.0, (ceiling - float(np.nanmax(floors.floors[-1, ranks]))) / rate - gone) / float(along.mean())
        return Forecast(per_step, left, left * float(steps.mean()), left * float(seconds.mean()) if is_timed else None)

    def _is_urgent(self, forecast: Forecast) -> bool:
        if forecast.blocks is None:
            return False
        return forecast.blocks <= self.page_blocks or (forecast.seconds is not None and 0.0 < forecast.seconds <= self.page_seconds)

    def _finding(self, name: str, scope: str, ranks: list[int], floors: Floors, *, end_step: int | None = None) -> Finding:
        growth = self.growing[f"{name}|{scope}"]
        metric, _, node = name.partition("@")
        now, forecast = float(np.nanmedian(floors.floors[-1, ranks])), self._forecast(name, ranks, floors)
        end = None if forecast.steps is None else int(self.step + forecast.steps)
        is_far = forecast.seconds is not None and forecast.seconds > self.far_seconds
        severity = Severity.INFO if is_far else Severity.WARNING
        if self._is_urgent(forecast) and end_step is None:
            severity = Severity.CRITICAL
        many = len(floors.floors[-1])
        who = f"node {node}" if node else named(ranks) if many > 1 else "the run"
        soon = f"; out of memory by about step {end:,} at this rate" if end is not None and end_step is None else ""
        over = " and has stopped" if end_step is not None else ""
        is_fragmented = name == RESERVED and ALLOCATED in self.floors
        if is_fragmented:
            soon += "; what is allocated did not grow with it: the allocator's memory is fragmented, try PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"
        return Finding(
            kind=self.kind,
            severity=severity,
            scope=f"{metric} of {scope}" if scope != "run" else metric,
            onset_step=max(growth.onset, 0),
            detected_step=max(self.step, growth.onset, 0),
            end_step=end_step,
            metric=metric,
            ranks=tuple(ranks) if not node and len(ranks) < many else (),
            nodes=(node,) if node else (),
            score=(now / growth.first - 1.0) / self.least_growth if growth.first else 0.0,
            summary=f"{metric} of {who} grew from {_bytes(growth.first)} to {_bytes(now)} since step {growth.onset}, "
            f"{_bytes(forecast.per_step)} a step{over}{soon}",
            evidence={
                "from_bytes": growth.first,
                "to_bytes": now,
                "bytes_per_step": forecast.per_step,
                "ceiling_bytes": self.ceilings.get(name),
                "forecast_step": end,
                "forecast_seconds": forecast.seconds,
                "fragmented": is_fragmented,
                "floors": [round(float(floor)) for floor in np.nanmedian(floors.floors[:, ranks], axis=1) if np.isfinite(floor)],
                "window": [max(growth.onset, 0), max(self.step, 0)],
            },
        )


def _slope(values: NDArray[np.float64], spans: NDArray[np.float64]) -> float:
    """Theil and Sen's: the middle one of the slopes between any two values."""
    if len(values) < 2:
        return 0.0
    i, j = np.triu_indices(len(values), 1)
    at = np.concatenate([[0.0], np.cumsum(spans)])
    return float(np.median((values[j] - values[i]) / (at[j] - at[i])))


def _bytes(amount: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if abs(amount) < 1000.0:
            return f"{amount:.3g} {unit}"
        amount /= 1000.0
    return f"{amount:.4g} TB"
