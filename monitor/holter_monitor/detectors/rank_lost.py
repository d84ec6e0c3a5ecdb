"""Ranks that are gone: killed, crashed, out of memory; or no longer heard of while the others go on."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from holter.frame import Event

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.ranks import named
from holter_monitor.stream.steps import Step, Topology

LOSSES = frozenset({"rank_lost", "rank_failed"})


@dataclass(slots=True)
class Lost:
    """The losses of one attempt: the first is the cause until the evidence says otherwise, the others follow from it."""

    onset: int
    ranks: list[int]
    nodes: list[str]
    why: str
    first_ns: int
    said: int = 0


@dataclass(kw_only=True)
class RankLost:
    """The agents' and the ranks' own word (`rank_lost`, `rank_failed`), gathered by attempt: 384 dead ranks are one finding that names the first.

    `rank_terminated` (a preemption, an operator) is recorded and pages nobody. A rank that stays behind for `missing_steps` while the others go on
    is named too. Said at the first loss, then at every doubling of their number.
    """

    kind: ClassVar[str] = "rank_lost"
    missing_steps: int = 50
    attempt: str = field(init=False, default="")
    step: int = field(init=False, default=0)
    lost: Lost | None = field(init=False, default=None)
    missing: dict[int, int] = field(init=False, default_factory=dict)
    """Steps for which each rank has been behind the others."""
    absent: dict[int, int] = field(init=False, default_factory=dict)
    """Ranks named as missing, with the onset."""
    terminated: list[int] = field(init=False, default_factory=list)

    def observe(self, step: Step) -> list[Finding] | None:
        said: list[Finding] = []
        if step.attempt != self.attempt:
            said += self._next_attempt(step)
        self.step = step.number
        if not len(step.missing) and not self.missing and not self.absent:
            return said or None
        behind = {int(rank) for rank in step.missing}
        self.missing = {rank: self.missing.get(rank, 0) + 1 for rank in behind}
        fresh = sorted(rank for rank, steps in self.missing.items() if steps == self.missing_steps and rank not in self.absent)
        known = set(self.lost.ranks) if self.lost else set()
        fresh = [rank for rank in fresh if rank not in known and rank not in self.terminated]
        if fresh:
            self.absent |= dict.fromkeys(fresh, step.number - self.missing_steps)
            said.append(self._absent(fresh, step.number - self.missing_steps, step))
        back = sorted(rank for rank in self.absent if rank not in behind)
        for onset in sorted({self.absent[rank] for rank in back}):
            ranks = [rank for rank in back if self.absent[rank] == onset]
            said.append(self._absent(ranks, onset, step, end_step=step.number))
        self.absent = {rank: onset for rank, onset in self.absent.items() if rank in behind}
        return said or None

    def hear(self, event: Event, topology: Topology) -> Finding | None:
        word, rank = event["event"], event.get("rank")
        if not isinstance(rank, int):
            return None
        if word == "rank_terminated":
            return self._terminate(rank, event)
        if word not in LOSSES:
            return None
        at = event.get("time_ns") or 0
        if self.lost is None:
            self.lost = Lost(max(self._step_of(event), 0), [rank], [], _why(event), at)
        elif rank not in self.lost.ranks and len(self.lost.ranks) < 131_072:
            is_first = self._comes_before(self.lost, _why(event), at)
            self.lost.ranks = [rank, *self.lost.ranks] if is_first else [*self.lost.ranks, rank]
            if is_first:
                was_a_follower, self.lost.why, self.lost.first_ns = _follows(self.lost.why), _why(event), at
                self.lost.said = 0 if was_a_follower else self.lost.said
        self.lost.nodes = list(topology.nodes(self.lost.ranks))[:256]
        if len(self.lost.ranks) < 2 * self.lost.said:
            return None
        self.lost.said = len(self.lost.ranks)
        return self._loss(self.lost)

    @staticmethod
    def _comes_before(lost: Lost, why: str, at: int) -> bool:
        """The rank that ended for a reason of its own comes first; the others complain of it, and may say so before its agent has seen it go."""
        if _follows(lost.why) != _follows(why):
            return _follows(lost.why)
        return 0 < at < lost.first_ns

    def finish(self) -> Finding | None:
        return self._loss(self.lost) if self.lost and self.lost.said < len(self.lost.ranks) else None

    def _step_of(self, event: Event) -> int:
        attrs = event.get("attrs") or {}
        for step in (event.get("step"), attrs.get("last_step")):
            if isinstance(step, int):
                return step
        return self.step

    def _next_attempt(self, step: Step) -> list[Finding]:
        """Another attempt has begun: what was lost is replaced, the loss is over."""
        said = [self._loss(self.lost, end_step=max(step.number, self.lost.onset))] if self.lost else []
        self.attempt, self.lost, self.missing, self.absent, self.terminated = step.attempt, None, {}, {}, []
        return said

    def _terminate(self, rank: int, event: Event) -> Finding | None:
        self.terminated.append(rank)
        if len(self.terminated) > 1:
            return None
        signal = str((event.get("attrs") or {}).get("signal", "SIGTERM"))[:40]
        step = max(self._step_of(event), 0)
        return Finding(
            kind=self.kind,
            severity=Severity.INFO,
            scope="terminated",
            onset_step=step,
            detected_step=max(self.step, step),
            end_step=max(self.step, step),
            ranks=(rank,),
            summary=f"rank {rank} was asked to end ({signal}) at step {step}: a preemption or an operator, not a fault",
            evidence={"signal": signal, "window": [max(0, step - 50), max(self.step, step)]},
        )

    def _loss(self, lost: Lost, *, end_step: int | None = None) -> Finding:
        others = len(lost.ranks) - 1
        more = f", {others} other rank{'s' if others > 1 else ''} after it" if others else ""
        where = f" on {lost.nodes[0]}" if len(lost.nodes) == 1 else ""
        return Finding(
            kind=self.kind,
            severity=Severity.CRITICAL,
            onset_step=lost.onset,
            detected_step=max(self.step, lost.onset),
            end_step=end_step,
            ranks=tuple(lost.ranks[:1024]),
            nodes=tuple(lost.nodes),
            score=float(len(lost.ranks)),
            summary=f"rank {lost.ranks[0]}{where} was lost at step {lost.onset}: {lost.why}{more}",
            evidence={
                "first": lost.ranks[0],
                "why": lost.why,
                "lost": len(lost.ranks),
                "window": [max(0, lost.onset - 50), max(self.step, lost.onset)],
            },
        )

    def _absent(self, ranks: list[int], onset: int, step: Step, *, end_step: int | None = None) -> Finding:
        verb = "has" if len(ranks) == 1 else "have"
        tail = "reported again" if end_step is not None else f"reported no step since {onset}, the others are at {step.number}"
        return Finding(
            kind=self.kind,
            severity=Severity.WARNING,
            scope=named(ranks),
            onset_step=onset,
            detected_step=step.number,
            end_step=end_step,
            ranks=tuple(ranks),
            nodes=step.topology.nodes(ranks),
            score=float(len(ranks)),
            summary=f"{named(ranks)} {verb} {tail}",
            evidence={"missing_steps": step.number - onset, "window": [max(0, onset - 50), step.number]},
        )


PEER = ("connectionreset", "connection reset", "connectionerror", "broken pipe", "brokenpipe", "peer", "nccl", "gloo", "distbackend")


def _follows(why: str) -> bool:
    """Whether this end only tells of another's: a reset connection, a collective that failed."""
    return any(word in why.lower() for word in PEER)


def _why(event: Event) -> str:
    attrs: dict[str, Any] = event.get("attrs") or {}
    if event["event"] == "rank_failed":
        return f"{attrs.get('type', 'an exception')}: {attrs.get('message', '')}".replace("\n", " ")[:300]
    told = attrs.get("evidence") or attrs.get("reason") or ({"signal": attrs["signal"]} if "signal" in attrs else "")
    return (_in_words(told) if isinstance(told, Mapping) else str(told) or "the process is gone without a word").replace("\n", " ")[:300]


def _in_words(facts: Mapping[str, Any]) -> str:
    """What a sender of its own told in fields instead of a sentence."""
    words = [_signal(value) if key == "signal" else f"{key.replace('_', ' ')} {value}" for key, value in facts.items()]
    return ", ".join(words)


def _signal(value: object) -> str:
    names = {number.value: number.name for number in signal.Signals}
    return f"killed by {names.get(value, f'signal {value}') if isinstance(value, int) else value}"
