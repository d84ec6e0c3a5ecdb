"""Whether a rank still makes progress, judged by what it is about and by the longest pause it has shown so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from holter.node.reader import RingReader, Rows
from holter.ring import Phase, State, Word

SHORTEST_SECONDS = 180.0
"""No pause shorter than this is called a hang, however quick the steps are."""
STOPPED_SECONDS = 15.0
"""… but a process in the state "stopped" makes no progress for certain."""
PAUSES = 3.0
"""A hang is longer than so many of the longest pauses seen: a false alarm that kills a good job is worse than a late one."""
LONGEST_SECONDS = 1800.0
FIRST_SECONDS = {Phase.START: 1200.0, Phase.CHECKPOINT: 1200.0, Phase.EVALUATION: 1200.0}
"""How long a phase may take that has not been seen yet: compilation and the first step, a first checkpoint, a first evaluation."""
_UNSEEN_SECONDS = 300.0
"""Allowed while fewer than `_SEEN` steps have been seen: the longest pause of a run is not learned from its first steps."""
_SEEN = 20


@dataclass
class Progress:
    """One rank's pauses. `look` is asked about once a second."""

    longest: dict[Phase, float] = field(default_factory=dict)
    steps: int = 0
    is_hung: bool = False
    quiet_seconds: float = 0.0
    """Without progress, as of the last look."""
    _last_row_ns: int = 0
    _phase: Phase = Phase.START
    _phase_since_ns: int = 0

    def learn(self, rows: Rows, phase_since_ns: int) -> None:
        """The gaps between rows are pauses of ordinary work, unless a declared checkpoint or evaluation lay in them."""
        for at in rows.time_ns.tolist():
            if self.steps and not self._last_row_ns < phase_since_ns <= at:
                self._note(Phase.STEP, (at - self._last_row_ns) / 1e9)
            self._last_row_ns = at
            self.steps += 1

    def _note(self, phase: Phase, seconds: float) -> None:
        self.longest[phase] = max(self.longest.get(phase, 0.0), min(seconds, LONGEST_SECONDS))

    def look(self, ring: RingReader, now_ns: int, *, is_stopped: bool = False) -> tuple[str, float] | None:
        """`("rank_hung", seconds)` when a hang begins, `("rank_resumed", seconds)` when it is over, else None. A process that the system says is
        stopped (SIGSTOP, a debugger) need not be waited for as one that may be busy."""
        words = ring.words
        phase, since = Phase(words[Word.PHASE]), words[Word.PHASE_SINCE]
        # A row ends what was declared before it, also where the declaration was a plain call and nothing closed it.
        if self._last_row_ns > since:
            phase, since = Phase.STEP, self._last_row_ns
        if self._phase != phase:
            if self._phase in (Phase.CHECKPOINT, Phase.EVALUATION):
                self._note(self._phase, (since - self._phase_since_ns) / 1e9)
            self._phase, self._phase_since_ns = phase, since
        newest = max(self._last_row_ns, since, words[Word.REACHED_AT], words[Word.CLOCK])
        quiet = self.quiet_seconds = (now_ns - newest) / 1e9
        limit = STOPPED_SECONDS if is_stopped else self.limit(phase)
        if self.is_hung and quiet < limit and not is_stopped:
            self.is_hung = False
            return "rank_resumed", quiet
        if not self.is_hung and quiet >= limit and words[Word.STATE] == State.RUNNING:
            self.is_hung = True
            return "rank_hung", quiet
        return None

    def phase_name(self) -> str:
        return self._phase.name.lower()

    def limit(self, phase: Phase) -> float:
        """Seconds without progress after which this rank is called hung in `phase`."""
        if phase in FIRST_SECONDS:
            first = FIRST_SECONDS[phase]
            learned = self.longest.get(phase)
            return first if learned is None else min(LONGEST_SECONDS, max(first / 4, PAUSES * learned))
        floor = SHORTEST_SECONDS if self.steps >= _SEEN else _UNSEEN_SECONDS
        return min(LONGEST_SECONDS, max(floor, PAUSES * self.longest.get(Phase.STEP, 0.0)))
