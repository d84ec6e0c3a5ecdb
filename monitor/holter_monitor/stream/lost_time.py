"""What a slow run costs: the time lost since an onset, against what its records would have cost at the run's own base, and the words for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from holter_monitor.findings import Severity
from holter_monitor.stream.pace import Beat, Stall


@dataclass(slots=True)
class Toll:
    """What some records took, regular pauses left out: enough to tell later what they lost, against whatever base."""

    step: int
    """The first step."""
    record: int
    """The first record."""
    records: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    """Wall time."""
    work: float = 0.0
    """Units of work that were done in it."""
    waited: float = 0.0
    """Seconds of it that the data loader took."""
    stalls: int = 0

    def add(self, beat: Beat) -> None:
        if beat.stall is not None:
            if beat.stall.excused:
                return
            self.stalls += 1
        self.records += 1
        self.cost += beat.cost
        if beat.seconds is not None:
            took = beat.seconds * beat.steps
            self.seconds += took
            self.work += took / beat.cost
            self.waited += beat.wait * beat.steps


def usual_wait(blocks: Iterable[Toll]) -> float:
    """Seconds that a unit of work usually waits for data: the middle one of these blocks."""
    waits = sorted(block.waited / block.work for block in blocks if block.work > 0.0)
    return waits[len(waits) // 2] if waits else 0.0


@dataclass(slots=True)
class Loss:
    """An open drop: what it has cost since its onset."""

    onset: int
    first_record: int
    severity: Severity
    base: float
    shape: str
    """"step" (one, by itself), "stalls" or "level"."""
    is_confirmed: bool
    before: float
    """What the run had spent until the onset, same units as `spent`."""
    usual_wait: float = 0.0
    """Seconds that a unit of work waits for data in calm times."""
    spent: float = 0.0
    """Cost of all records since the onset, regular pauses left out."""
    ideal: float = 0.0
    """What they would have cost at the base."""
    seconds: float = 0.0
    """Wall time lost, with what another loss accounts for."""
    apart: float = 0.0
    """The part of `seconds` that a level which fell meanwhile accounts for: each second is counted once."""
    has_seconds: bool = False
    waited: float = 0.0
    """Seconds of the loss that were spent waiting for data."""
    stalls: int = 0
    last_bad: int = 0
    bad_record: int = 0
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

    @property
    def cost_seconds(self) -> float | None:
        """Wall time lost that no other loss accounts for."""
        return max(0.0, self.seconds - self.apart) if self.has_seconds else None

    @property
    def wait_share(self) -> float:
        """Part of the lost seconds in which the data loader was waited for."""
        return min(1.0, max(0.0, self.waited) / self.seconds) if self.seconds > 0.0 else 0.0

    def add(self, beat: Beat) -> None:
        self.spent += beat.cost
        self.ideal += self.base
        self.recent.append(beat.cost / self.base)
        if beat.seconds is not None:
            self._lose(beat.took, beat.took / beat.cost, beat.wait * beat.steps)

    def add_block(self, block: Toll, level: float) -> float:
        """Takes in what a block lost by its level alone, not by its stalls; the seconds."""
        self.spent += level * block.records
        self.ideal += self.base * block.records
        self.recent.extend([level / self.base] * block.records)
        if not block.work:
            return 0.0
        lost = (level - self.base) * block.work
        self._lose(level * block.work, block.work, min(block.waited, self.usual_wait * block.work + max(0.0, lost)))
        return lost

    def add_whole(self, block: Toll) -> None:
        """Takes in all that a block lost."""
        self.spent += block.cost
        self.ideal += self.base * block.records
        self.stalls += block.stalls
        if block.work:
            self._lose(block.seconds, block.work, block.waited)

    def add_stall(self, stall: Stall, times: int = 1) -> None:
        """Takes in one earlier stall, or takes it out again (-1) when it turned out to be a regular pause."""
        self.spent += times * stall.cost
        self.ideal += times * self.base
        self.stalls += times
        if stall.took:
            work = stall.took / stall.cost
            self._lose(times * stall.took, times * work, times * (stall.wait + self.usual_wait * work))

    def _lose(self, took: float, work: float, waited: float) -> None:
        self.has_seconds = True
        self.seconds += took - self.base * work
        self.waited += waited - self.usual_wait * work

    def goes_on(self, records: int, share: float) -> bool:
        """Whether `share` of the time has been lost since the onset, and in the last `records` records too."""
        if len(self.recent) < records or self.recent_share < share:
            return False
        return 1.0 - len(self.recent) / sum(self.recent) >= share

    def sentence(self, said: list[str], level_ratio: float, end_step: int | None) -> str:
        """In one line: since when, how much, and how it shows; `said` is what the surroundings add."""
        cost = self.cost_seconds
        when = f"since step {self.onset}" if end_step is None else f"between steps {self.onset} and {end_step}"
        share = f"{self.share:.0%} of all wall time lost"
        if self.shape == "level":
            seconds = f", {cost:,.0f} s lost" if cost is not None else f", {share}"
            slower = f"each step takes {level_ratio - 1.0:.1%} longer" if end_step is None else "each step took longer"
            return "; ".join([f"{slower} {when}{seconds}", *said])
        if self.shape == "step":
            lost = f", {cost:,.1f} s lost" if cost is not None else ""
            return "; ".join([f"step {self.onset} took {self.spent / self.ideal:.1f} times as long as usual{lost}; a single one", *said])
        seconds = f" ({cost:,.0f} s)" if cost is not None else ""
        if cost is not None and self.apart > 0.5:
            seconds = f" ({cost:,.0f} s by stalls, {self.apart:,.0f} s by the level, told apart)"
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
