"""A run that stands still: ranks that no longer reach the step that the others have reached, or nobody moving at all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from holter.frame import Event

from holter_monitor.collectives import Collectives
from holter_monitor.findings import Finding, Severity
from holter_monitor.stacks import Stacks
from holter_monitor.stream.ranks import named
from holter_monitor.stream.steps import Step, Topology

DEPARTING = frozenset({"rank_finished", "rank_failed", "rank_terminated", "rank_lost"})
PAUSES = frozenset({"checkpoint", "eval", "resume", "stage"})


@dataclass(slots=True)
class Standstill:
    onset: int
    ranks: list[int]
    """The ranks that are behind; empty while nobody is."""
    seconds: float
    phase: str = ""
    nodes: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Hang:
    """Two signs, by the collector's clock: ranks behind and no step closed since, soon; nobody behind and no step, late.

    A hang is told from a long pause by the ranks behind: in a checkpoint or an evaluation all stand at the same step. Without ranks behind the
    limit is fifteen minutes (levanter's), or three times the longest pause that the run has come back from. The agents' own word (`rank_hung`,
    with stacks) counts at once when it names ranks. Stacks and dumps of the flight recorder that come later join the evidence, and
    a rank that never entered the collective in which the others wait is named.
    """

    kind: ClassVar[str] = "hang"
    behind_seconds: float = 45.0
    """Standstill with ranks behind; at least ten usual steps are waited for."""
    still_seconds: float = 900.0
    """Standstill with no rank behind."""
    longest: float = field(init=False, default=0.0)
    """Longest standstill that ended by itself."""
    typical: float = field(init=False, default=0.0)
    """Seconds of a usual step."""
    step: int = field(init=False, default=-1)
    behind: list[int] = field(init=False, default_factory=list)
    paused: bool = field(init=False, default=False)
    """The newest step declared a pause."""
    moved: bool = field(init=False, default=False)
    since: float | None = field(init=False, default=None)
    steps: int = field(init=False, default=0)
    ranks: int = field(init=False, default=0)
    gone: list[int] = field(init=False, default_factory=list)
    hung: dict[int, int] = field(init=False, default_factory=dict)
    """Ranks that their agent calls hung, with the step they stand at."""
    stopped: list[int] = field(init=False, default_factory=list)
    """Those of them whose process is stopped, by a signal or a debugger."""
    still: Standstill | None = field(init=False, default=None)
    stacks: Stacks = field(init=False, default_factory=Stacks)
    """Where the ranks stand, since the last step that closed."""
    collectives: Collectives = field(init=False, default_factory=Collectives)
    """How far the ranks came in their process groups, as the flight recorders' dumps say."""
    untold: bool = field(init=False, default=False)
    """Stacks or dumps came that no finding has told yet."""

    def observe(self, step: Step) -> Finding | None:
        self.steps += 1
        self.step, self.ranks, self.moved = step.number, len(step.ranks), True
        self.behind = [int(rank) for rank in step.missing]
        self.paused = bool(step.words & PAUSES)
        if self.still is None and (self.stacks.groups or self.collectives.groups):
            self.stacks, self.collectives = Stacks(), Collectives()
        seconds = step.mean("step_time_seconds")
        if seconds is not None and 0.0 < seconds < 1e6:
            self.typical += (seconds - self.typical) * (0.05 if self.typical else 1.0)
        if step.words and "resume" in step.words:
            self.gone, self.hung, self.stopped = [], {}, []
        if self.still is None or (self.behind and set(self.behind) & set(self.still.ranks)):
            return None
        still, self.still, self.hung, self.stopped = self.still, None, {}, []
        ended = self._finding(still, end_step=step.number)
        self.stacks, self.collectives = Stacks(), Collectives()
        return ended

    def hear(self, event: Event, topology: Topology) -> Finding | None:
        word, rank, attrs = event["event"], event.get("rank"), event.get("attrs") or {}
        if word == "stacks":
            is_new = self.stacks.add(attrs.get("stacks"))
            self.untold = True
            return self._finding(self.still) if self.still is not None and is_new else None
        if word == "flight_recorder":
            self.untold = self.collectives.add(rank, attrs.get("groups")) or self.untold
            return None
        if not isinstance(rank, int):
            return None
        if word in DEPARTING and rank not in self.gone and len(self.gone) < 131_072:
            self.gone.append(rank)
        if word == "rank_resumed":
            self.hung.pop(rank, None)
            self.stopped = [other for other in self.stopped if other != rank]
        if word != "rank_hung":
            return None
        step = event.get("step")
        self.hung[rank] = step if isinstance(step, int) else self.step
        if attrs.get("stopped") is True and rank not in self.stopped:
            self.stopped.append(rank)
        culprits, had_stacks = self._culprits(), bool(self.stacks.groups)
        self.stacks.add(attrs.get("stacks"))
        seconds = attrs.get("seconds")
        if self.still is None:
            self.still = Standstill(max(self.step, 0), culprits, float(seconds) if isinstance(seconds, int | float) else 0.0)
        elif culprits == self.still.ranks and had_stacks:
            self.untold = True
            return None
        self.still.ranks = culprits or self.still.ranks
        self.still.phase = str(attrs.get("phase") or self.still.phase)[:100]
        self.still.nodes = list(topology.nodes(self.still.ranks))
        return self._finding(self.still)

    def tick(self, now: float) -> Finding | None:
        if self.moved or self.since is None:
            if self.since is not None and self.steps > 2:
                self.longest = max(self.longest, now - self.since) if not self.still else self.longest
            self.moved, self.since = False, now
            return None
        quiet = now - self.since
        if self.still is not None and self.untold:
            return self._finding(self.still)
        if self.still is not None or self.steps < 2 or self._has_ended():
            return None
        if self.behind:
            limit = max(self.behind_seconds, 10.0 * self.typical) * (10.0 if self.paused else 1.0)
        else:
            limit = max(self.still_seconds, 30.0 * self.typical, 3.0 * self.longest)
        if quiet < limit:
            return None
        self.still = Standstill(self.step, list(self.behind), quiet)
        return self._finding(self.still)

    def _has_ended(self) -> bool:
        return bool(self.gone) and (not self.behind or set(self.behind) <= set(self.gone) or len(self.gone) >= self.ranks)

    def _culprits(self) -> list[int]:
        """The ranks that the others wait for: those whose process is stopped, else those that stand at a lower step. Nobody while all stand at
        one step: that one's agent spoke first says nothing."""
        stopped = sorted(rank for rank in self.stopped if rank in self.hung)
        lowest = min(self.hung.values())
        if stopped or lowest >= max(self.step, *self.hung.values()):
            return stopped
        return sorted(rank for rank, step in self.hung.items() if step == lowest)

    def _who(self, still: Standstill) -> str:
        if not still.ranks:
            return f"all {self.ranks} ranks stand at step {still.onset}" if self.ranks > 1 else f"the run stands at step {still.onset}"
        others = self.ranks - len(still.ranks)
        at = min((self.hung.get(rank, -1) for rank in still.ranks), default=-1)
        if at < still.onset:
            return f"{named(still.ranks)} did not reach step {still.onset}, the other {others} did"
        # A stopped rank often stands at the very step at which the others wait for it.
        reached = f", which the other {others} reached too" if others and at == still.onset and not self.behind else ""
        return f"{named(still.ranks)} hung at step {at}{reached}"

    def _finding(self, still: Standstill, *, end_step: int | None = None) -> Finding:
        who = self._who(still)
        where = f", in {still.phase}" if still.phase else ""
        verdict = self.collectives.verdict(self.ranks)
        self.untold = False
        return Finding(
            kind=self.kind,
            severity=Severity.CRITICAL,
            onset_step=still.onset,
            detected_step=max(self.step, still.onset),
            end_step=end_step,
            ranks=tuple(((verdict.never_entered if verdict else []) or still.ranks)[:1024]),
            nodes=tuple(still.nodes),
            score=still.seconds / self.behind_seconds,
            cost_seconds=still.seconds,
            summary=f"the run moves again at step {end_step}"
            if end_step is not None
            else f"{who}{where}; nothing has moved for {still.seconds:.0f} s, a step takes {self.typical:.2g} s",
            evidence={
                "seconds": round(still.seconds, 1),
                "step_seconds": round(self.typical, 4),
                "behind": still.ranks[:64],
                "standing": self.stacks.sentence(),
                "stacks": self.stacks.listed(at_most=8, named=64),
                "collectives": verdict.sentence if verdict else "",
                "never_entered": verdict.never_entered[:64] if verdict else [],
                "called_otherwise": verdict.called_otherwise[:64] if verdict else [],
                "longest_pause_seconds": round(self.longest, 1),
                "window": [max(0, still.onset - 50), max(self.step, still.onset)],
            },
        )
