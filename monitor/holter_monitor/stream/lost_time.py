"""What a slow run costs: the time lost since an onset, against what its records would have cost at the run's own base, and the words for it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from holter_monitor.findings import Severity
from holter_monitor.stream.pace import Beat


@dataclass(slots=True)
class Loss:
    """An open drop: what it has cost since its onset."""

    onset: int
    first_record: int
    severity: Severity
    base: float
    shape: str
    """"stalls" or "level"."""
    is_confirmed: bool
    before: float
    """What the run had spent until the onset, same units as `spent`."""
    spent: float = 0.0
    """Cost of all records since the onset, regular pauses left out."""
    ideal: float = 0.0
    """What they would have cost at the base."""
    seconds: float = 0.0
    has_seconds: bool = False
    waited: float = 0.0
    """Seconds of the loss that were spent waiting for data."""
    stalls: int = 0
    last_bad: int = 0
    said_record: int = 0
    said_share: float = 0.0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=200))
    """Costs of the last records in units of the base."""

    @property
    def recent_share(self) -> float:
        """Part of the wall time since the onset that was lost."""
        return max(0.0, 1.0 - self.ideal / self.spent) if self.spent else 0.0

    @property
    def share(self) -> float:
        """Part of the run's whole wall time that was lost since the onset."""
        return max(0.0, (self.spent - self.ideal) / (self.spent + self.before)) if self.spent else 0.0

    def add(self, beat: Beat, stride: float, waited: float) -> None:
        self.spent += beat.cost
        self.ideal += self.base
        self.recent.append(beat.cost / self.base)
        if beat.seconds is not None:
            self.has_seconds = True
            self.seconds += beat.seconds * (1.0 - self.base / beat.cost) * stride
        self.waited += waited

    def goes_on(self, records: int, share: float) -> bool:
        """Whether `share` of the time has been lost since the onset, and in the last `records` records too."""
        if len(self.recent) < records or self.recent_share < share:
            return False
        return 1.0 - len(self.recent) / sum(self.recent) >= share

    def sentence(self, said: list[str], level_ratio: float, end_step: int | None) -> str:
        """In one line: since when, how much, and how it shows; `said` is what the surroundings add."""
        cost = max(0.0, self.seconds) if self.has_seconds else None
        when = f"since step {self.onset}" if end_step is None else f"between steps {self.onset} and {end_step}"
        share = f"{self.share:.0%} of all wall time lost"
        if self.shape == "level":
            seconds = f", {cost:,.0f} s lost" if cost is not None else f", {share}"
            slower = f"each step takes {level_ratio - 1.0:.1%} longer" if end_step is None else "each step took longer"
            return "; ".join([f"{slower} {when}{seconds}", *said])
        seconds = f" ({cost:,.0f} s)" if cost is not None else ""
        if self.is_confirmed:
            how = f"{self.stalls} stalled steps that no regular pause explains, the median step {_beside(level_ratio)}"
        elif end_step is not None:
            how = "over, or a regular pause after all"
        else:
            how = f"{self.stalls} stalled step{'s' if self.stalls > 1 else ''}, no regular pause is known here"
        return "; ".join([f"{share} {when}{seconds}: {how}", *said])


def _beside(level_ratio: float) -> str:
    """How the median step stands to the run's own base."""
    change = level_ratio - 1.0
    if abs(change) < 0.005:
        return "is as fast as ever"
    return f"takes {abs(change):.1%} {'longer' if change > 0 else 'less'}"
