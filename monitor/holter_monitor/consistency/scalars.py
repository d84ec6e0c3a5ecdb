"""What ranks must agree on besides tensors: learning rate, step, batch, data position; and random streams that must not be the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from holter.fingerprint import Flag, Slot
from numpy.typing import NDArray

from holter_monitor.consistency.rounds import STAGE_AXES, TENSOR_AXES, Ints, Round, is_data
from holter_monitor.findings import Finding, Severity

KIND = "rank_disagreement"
CALM_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Rule:
    """`slot` must be equal (or unlike) over some axes; `rounds` in a row before it is said."""

    name: str
    slot: int
    over: str
    is_equal: bool
    rounds: int
    severity: Severity
    words: str
    cause: str
    legitimate: str


RULES = (
    Rule(
        "lr", Slot.LR, "all", True, 1, Severity.CRITICAL,
        words="train with another learning rate",
        cause="a scheduler that was not resumed, or counts its steps by itself",
        legitimate="parameter groups that differ between ranks",
    ),
    Rule(
        "step", Slot.STEP, "all", True, 2, Severity.WARNING,
        words="are at another step",
        cause="a rank skipped an optimizer step (overflow seen on one rank only), or resumed elsewhere",
        legitimate="asynchronous training",
    ),
    Rule(
        "batch", Slot.BATCH, "tensor", True, 2, Severity.CRITICAL,
        words="train on another batch than their tensor-parallel peers",
        cause="the sampler uses the global rank instead of the data-parallel rank",
        legitimate="batches that only the first rank loads and the model broadcasts",
    ),
    Rule(
        "data position", Slot.POSITION, "tensor", True, 2, Severity.WARNING,
        words="stand elsewhere in the data than their tensor-parallel peers",
        cause="a dataloader state that was not restored on all ranks",
        legitimate="a position that counts per rank",
    ),
    Rule(
        "same batch", Slot.BATCH, "data", False, 2, Severity.CRITICAL,
        words="train on the same batch as another data-parallel rank",
        cause="a sampler without rank or seed: every replica reads the same data",
        legitimate="overfitting one batch on purpose; a data set of one batch",
    ),
    Rule(
        "model-parallel generator", Slot.MODEL_RNG, "tensor", False, 2, Severity.CRITICAL,
        words="share the model-parallel random stream",
        cause="the generator was restored from one rank's checkpoint, or seeded without the tensor-parallel rank",
        legitimate="none is known",
    ),
    Rule(
        "dropout generator", Slot.RNG, "data", False, 2, Severity.WARNING,
        words="draw the same dropout masks as another data-parallel rank",
        cause="all ranks were seeded alike and dropout is on",
        legitimate="dropout that is replayed on purpose",
    ),
)  # fmt: skip


@dataclass
class Streak:
    count: int = 0
    calm: int = 0
    onset: int = 0
    is_said: bool = False


@dataclass(kw_only=True)
class Scalars:
    """Judges the scalar words of rounds, rule by rule."""

    streaks: dict[str, Streak] = field(default_factory=dict)
    generators: dict[int, int] = field(default_factory=dict)
    """The default generator's state of each rank at its last fingerprint: one that stood still drew nothing."""

    def judge(self, round_: Round) -> list[Finding]:
        findings: list[Finding] = []
        for rule in RULES:
            part = self._part(rule, round_)
            axes = _axes(rule, part)
            findings += self._rule(rule, part, axes) if axes and part.of_ranks > 1 else []
        self.generators = dict(zip(round_.ranks.tolist(), round_.words[:, Slot.RNG].tolist(), strict=True))
        return findings

    def begin_anew(self) -> None:
        """A new attempt: generators were seeded again."""
        self.generators = {}

    def _part(self, rule: Rule, round_: Round) -> Round:
        """The ranks for which the word means something."""
        words = round_.words[:, rule.slot]
        if rule.slot == Slot.LR:
            return round_.only(np.isfinite(words.view(np.float64)))
        if rule.slot == Slot.STEP:
            return round_
        if rule.slot != Slot.RNG:
            return round_.only(words != 0)
        before = np.array([self.generators.get(rank, 0) for rank in round_.ranks.tolist()], np.int64)
        is_dropping = (round_.words[:, Slot.FLAGS] & Flag.DROPOUT) != 0
        return round_.only(is_dropping & (before != 0) & (words != before))

    def _rule(self, rule: Rule, part: Round, axes: list[str]) -> list[Finding]:
        bad, is_named = (_unequal if rule.is_equal else _alike)(part, axes, rule.slot)
        streak = self.streaks.setdefault(rule.name, Streak())
        if not len(bad):
            streak.count = 0
            streak.calm += 1
            if not streak.is_said or streak.calm < CALM_ROUNDS:
                return []
            del self.streaks[rule.name]
            return [_finding(rule, streak, part, bad, is_named, end_step=part.step)]
        streak.onset = streak.onset if streak.count or streak.is_said else part.step
        streak.count, streak.calm = streak.count + 1, 0
        if streak.is_said or streak.count < rule.rounds:
            return []
        streak.is_said = True
        return [_finding(rule, streak, part, bad, is_named)]


def _axes(rule: Rule, part: Round) -> list[str]:
    if rule.over == "all":
        return [axis for axis in part.axes if axis not in STAGE_AXES]
    if rule.over == "tensor":
        return [axis for axis in part.axes if axis.lower().split("_")[0] in TENSOR_AXES]
    return [axis for axis in part.axes if is_data(axis)]


def _unequal(part: Round, axes: list[str], slot: int) -> tuple[NDArray[np.intp], bool]:
    """Places of the ranks that differ from their group's majority; where there is none, of the whole group."""
    ids = part.groups(axes, same_layout=False)
    values: Ints = part.words[:, slot]
    firsts = np.unique(ids, return_index=True)[1]
    if (values == values[firsts[ids]]).all():
        return np.empty(0, np.intp), True
    bad: list[int] = []
    is_named = True
    for group in np.unique(ids[values != values[firsts[ids]]]).tolist():
        members = np.flatnonzero(ids == group)
        _, inverse, counts = np.unique(values[members], return_inverse=True, return_counts=True)
        is_majority = bool(counts.max() * 2 > len(members))
        is_named = is_named and is_majority
        bad += (members[inverse != counts.argmax()] if is_majority else members).tolist()
    return np.array(sorted(bad), np.intp), is_named


def _alike(part: Round, axes: list[str], slot: int) -> tuple[NDArray[np.intp], bool]:
    """Places of the ranks that carry the same word as another rank of their group."""
    ids = part.groups(axes, same_layout=False)
    pairs = np.stack([ids, part.words[:, slot]], axis=1)
    _, inverse, counts = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    return np.flatnonzero(counts[inverse.ravel()] > 1), True


def _finding(rule: Rule, streak: Streak, part: Round, bad: NDArray[np.intp], is_named: bool, *, end_step: int | None = None) -> Finding:
    ranks = part.ranks[bad].tolist()
    who = ", ".join(map(str, ranks[:8])) + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")
    said = f"{'Ranks' if len(ranks) != 1 else 'Rank'} {who} {rule.words}" if is_named else f"Ranks {who}: some of them {rule.words}"
    values = part.words[bad, rule.slot]
    shown: list[Any] = (values.view(np.float64) if rule.slot == Slot.LR else values).tolist()
    evidence = {
        "rule": rule.name,
        "values": dict(zip(map(str, ranks[:16]), shown[:16], strict=True)) if rule.slot in (Slot.LR, Slot.STEP) else {},
        "usual_cause": rule.cause,
        "legitimate": rule.legitimate,
        "window": [max(0, streak.onset - 50), part.step],
    }
    return Finding(
        kind=KIND,
        severity=rule.severity,
        scope=rule.name,
        onset_step=streak.onset,
        detected_step=part.step,
        end_step=end_step,
        metric="lr" if rule.slot == Slot.LR else None,
        ranks=tuple(ranks[:64]),
        score=float(len(ranks)),
        summary=f"{said}. Usual cause: {rule.cause}" if end_step is None else f"Ranks agree again on {rule.name} since step {end_step}",
        evidence=evidence,
    )
