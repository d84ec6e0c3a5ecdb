"""How fast a run goes and where it stops: the seconds a unit of work costs, the level they stand on, the stalls, and which of these are regular.

Four detectors judge throughput; the engine gives them one `Pace` (a field with `metadata=SHARED`), which takes each step in once.
A stall is a record that costs far more than the level. It is excused when an
event declares it (a checkpoint, an evaluation, a resume) or when it belongs to a period that the run has shown: a pause every 250 steps is
how the run works. Learning a period excuses the stalls that showed it too, so nothing stays open that turned out to be regular.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import exp, inf, log
from statistics import median

from holter_monitor.stats import MAD_TO_SIGMA, SortedWindow
from holter_monitor.stream.steps import Step

PAUSES = frozenset({"checkpoint", "eval", "resume", "stage"})
"""Declared events whose step, and the next one, may take as long as they like."""
REBASES = frozenset({"batch_size_change", "seq_len_change", "data_stage_change", "restart"})
"""Events after which a step costs something else; a restart from scratch may be another model."""
SHARED = {"shared": True}
"""Metadata of a detector's field that is the run's and not its own: the engine sets it, and keeps it in the snapshot once."""
RATES = ("tokens_per_second", "samples_per_second")
SECONDS = "step_time_seconds"


@dataclass(slots=True)
class Stall:
    step: int
    record: int
    """The how-manieth record it was; windows count records, periods count steps."""
    ratio: float
    """Its cost in units of the level."""
    seconds: float
    """Wall time beyond the level; 0.0 where the log has no step times."""
    wait: float
    """The part of `seconds` that the data loader took."""
    excused: bool
    cost: float = 0.0
    took: float = 0.0
    """Its whole wall time."""


@dataclass(slots=True)
class Period:
    """A regular pause: every `length` steps, last seen at `last`."""

    length: float
    last: int
    ratio: float

    def covers(self, step: int, ratio: float, stride: float) -> bool:
        off = (step - self.last) % self.length
        return min(off, self.length - off) <= max(stride, 0.02 * self.length) and ratio <= 3.0 * self.ratio + 1.0


@dataclass(slots=True)
class Beat:
    """One record as `Pace` sees it."""

    step: int
    record: int
    cost: float
    """Seconds for a unit of work (a token, a sample, a step: whatever the log has)."""
    ratio: float
    """`cost` in units of the level."""
    seconds: float | None
    """The step's wall time; None where the log has no step times."""
    steps: float = 1.0
    """How many steps the record stands for."""
    wait: float = 0.0
    """Seconds of a step that the data loader took."""
    stall: Stall | None = None
    """The stall that this record is, if it is one."""
    forgiven: tuple[Stall, ...] = ()
    """Earlier stalls that this one has shown to be part of a regular pause: they were no loss."""

    @property
    def took(self) -> float:
        """The record's wall time; 0.0 where the log has no step times."""
        return (self.seconds or 0.0) * self.steps


@dataclass(kw_only=True)
class Pace:
    """Follows one run's cost of work. About 2 µs a record."""

    warmup_records: int = 5
    """Records not looked at: compilation and caches make the first steps slow."""
    least_records: int = 15
    """Records after these that the first level is taken from: a short fine-tune has not many more."""
    early_ratio: float = 3.0
    """`least_ratio` while the level stands on less than 40 records: caches still fill, and so few tell the spread badly."""
    least_ratio: float = 1.5
    """How much a record costs, in units of the level, before it can be a stall."""
    records: int = 0
    stride: float = 1.0
    """Steps from one record to the next."""
    level: float = 0.0
    """Cost of a normal record: the median of the last ones that were no stalls. 0.0 until it is known."""
    limit: float = 1.5
    """The ratio from which a record is a stall: `least_ratio`, or eight deviations where the run is noisier than that."""
    scale: float = 0.0
    """Spread of the logarithm of the cost, as a standard deviation."""
    basis: str = ""
    """The metric that the cost is taken from."""
    normal: SortedWindow = field(default_factory=lambda: SortedWindow(200))
    stalls: deque[Stall] = field(default_factory=lambda: deque(maxlen=64))
    """The newest stalls that neither a declaration nor a known period excused when they came."""
    periods: list[Period] = field(default_factory=list)
    strides: deque[int] = field(default_factory=lambda: deque(maxlen=32))
    first_step: int = -1
    last_step: int = -1
    excused_until: int = -1
    wait_level: float = 0.0
    run_of_stalls: int = 0
    worst_pause: float = 1.0
    """The largest ratio that a declared or learned pause has had."""
    early: list[tuple[int, int, float]] = field(default_factory=list)
    """(step, record, cost) of the records before the level was known: a period may have begun among them."""

    def observe(self, step: Step) -> Beat | None:
        """The record's beat; None where it has no cost, or before the level is known. A step is taken in once, however often it is asked for."""
        if step.paced_by is not self:
            step.beat = self._take(step)
            step.paced_by = self
        beat: Beat | None = step.beat
        return beat

    def _take(self, step: Step) -> Beat | None:
        if step.words:
            self._hear(step.words)
        cost = self._cost(step)
        if cost is None:
            return None
        steps = self._advance(step.number)
        if self.records <= self.warmup_records:
            self.early.append((step.number, self.records, cost))
            return None
        if self.level == 0.0:
            self._start(step.number, cost)
            return None
        ratio = cost / self.level
        wait = step.mean("data_wait_seconds") or 0.0
        seconds = cost if self.basis == SECONDS else step.mean(SECONDS)
        beat = Beat(step.number, self.records, cost, ratio, seconds, steps, wait)
        if ratio <= self.limit:
            self.run_of_stalls = 0
            level = self.wait_level
            self.wait_level = level + 0.02 * (min(wait, 4.0 * level + 1e-9) - level) if level else wait
            self._learn(cost, 10)
            return beat
        beat.stall = self._stall(beat)
        return beat

    def open_stalls(self, records: int) -> list[Stall]:
        """The unexcused stalls of the last `records` records, newest first."""
        found = []
        for stall in reversed(self.stalls):
            if stall.record <= self.records - records:
                break
            if not stall.excused:
                found.append(stall)
        return found

    def burst(self) -> float:
        """What the stalls of the last eight records cost beyond the level, in records, if so many stand together as no regular pause makes: three
        long ones, or four. 0.0 otherwise."""
        excess = [stall.ratio - 1.0 for stall in self.open_stalls(8)]
        is_burst = len(excess) >= 4 or sum(more > 2.0 for more in excess) >= 3
        return sum(excess) if is_burst else 0.0

    def _hear(self, words: frozenset[str]) -> None:
        if words & REBASES:
            self.normal.clear()
            self.level, self.run_of_stalls = 0.0, 0
        if words & PAUSES:
            self.excused_until = self.records + (4 if "resume" in words else 2)

    def _cost(self, step: Step) -> float | None:
        value = step.mean(self.basis) if self.basis else None
        if value is not None and 0.0 < value < inf:
            return value if self.basis == SECONDS else 1.0 / value
        return None if self.basis else self._first_cost(step)

    def _first_cost(self, step: Step) -> float | None:
        for metric in (*RATES, SECONDS):
            value = step.mean(metric)
            if value is not None and 0.0 < value < inf:
                self.basis = metric
                return value if metric == SECONDS else 1.0 / value
        return None

    def _advance(self, step: int) -> float:
        """Counts the record; answers with the steps that it stands for: since the record before, but not the whole of a gap in the log."""
        passed = step - self.last_step if self.last_step >= 0 else 1
        self.records += 1
        if self.first_step < 0:
            self.first_step = step
        if step > self.last_step >= 0:
            self.strides.append(step - self.last_step)
            if self.records % 16 == 0 or self.records < 16:
                self.stride = float(median(self.strides))
        self.last_step = step
        return float(passed) if 0 < passed <= 2.0 * self.stride else self.stride

    def _start(self, step: int, cost: float) -> None:
        self.early.append((step, self.records, cost))
        self._learn(cost, 1)
        if self.level == 0.0:
            return
        for early_step, record, early_cost in self.early:
            if early_cost / self.level > self.limit:
                self.stalls.append(Stall(early_step, record, early_cost / self.level, 0.0, 0.0, excused=True))
        self.early.clear()

    def _learn(self, cost: float, every: int) -> None:
        self.normal.push(cost)
        if self.records % every or len(self.normal) < self.least_records:
            return
        self.level = self.normal.median
        # Quartiles instead of the median deviation: the window is sorted already, so they cost nothing.
        spread = log(self.normal.quantile(0.75) / self.normal.quantile(0.25))
        self.scale = max(0.001, spread / 2.0 * MAD_TO_SIGMA)
        least = self.least_ratio if len(self.normal) >= 35 else self.early_ratio
        self.limit = max(least, exp(min(8.0 * self.scale, 3.0)))

    def _stall(self, beat: Beat) -> Stall:
        self.run_of_stalls += 1
        if self.run_of_stalls >= 20:  # twenty in a row are a new level, not stalls
            self.normal.push(beat.cost)
            if self.run_of_stalls >= 120:
                self._learn(beat.cost, 10)
        lost = beat.took * (1.0 - 1.0 / beat.ratio)
        waited = min(lost, max(0.0, beat.wait - self.wait_level) * beat.steps)
        stall = Stall(beat.step, beat.record, beat.ratio, lost, waited, self.records <= self.excused_until, beat.cost, beat.took)
        if not stall.excused and self.run_of_stalls < 20:
            if any(self._hits(period, stall) for period in self.periods):
                stall.excused = True
            else:
                forgiven = self._finds_period(stall)
                stall.excused, beat.forgiven = forgiven is not None, forgiven or ()
        if stall.excused:
            self.worst_pause = max(self.worst_pause, stall.ratio)
        else:
            self.stalls.append(stall)
        return stall

    def _hits(self, period: Period, stall: Stall) -> bool:
        if not period.covers(stall.step, stall.ratio, self.stride):
            return False
        if abs(stall.step - period.last) > 0.5 * period.length:
            period.last = stall.step
        return True

    def _finds_period(self, stall: Stall) -> tuple[Stall, ...] | None:
        """The earlier stalls that a period excuses after all: this one and others of its size stand at equal distances, more of them than
        chance would put there. None where they do not."""
        self.periods = [period for period in self.periods if abs(stall.step - period.last) <= 4.0 * period.length]
        alike = [old for old in self.stalls if old.step < stall.step and 0.625 < (old.ratio - 1.0) / (stall.ratio - 1.0) < 1.6][-24:]
        if len(alike) < 2:
            return None
        span = stall.step - alike[0].step
        best: list[Stall] = []
        best_chance = 0.05
        candidates = 0
        for old in reversed(alike[-12:]):
            gap = stall.step - old.step
            if gap < 8.0 * self.stride:
                continue
            candidates += 1
            slack = max(self.stride, 0.02 * gap)
            chain = _chain(alike, old, gap, slack)
            density = (len(alike) - len(chain) + 1) / span
            chance = candidates * min(1.0, density * (2.0 * slack + self.stride)) ** (len(chain) - 1)
            if len(chain) >= 2 and chance < best_chance:
                best, best_chance = chain, chance
        if not best:
            return None
        forgiven = tuple(old for old in best if not old.excused)
        for old in best:
            old.excused = True
        length = (stall.step - best[-1].step) / len(best)
        self.periods = [*self.periods[-5:], Period(length, stall.step, median([old.ratio for old in best]))]
        return forgiven


def _chain(stalls: list[Stall], newest: Stall, gap: int, slack: float) -> list[Stall]:
    """`newest` and its predecessors at distances of `gap`, newest first."""
    chain = [newest]
    for old in reversed(stalls):
        off = chain[-1].step - gap - old.step
        if abs(off) <= slack:
            chain.append(old)
        elif off > slack:
            break
    return chain
