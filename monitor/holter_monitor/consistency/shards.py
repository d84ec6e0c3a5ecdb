"""Shards of one tensor must be unlike: pairs of ranks whose sketches correlate hold the same numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from holter.fingerprint import SKETCH, Slot
from holter.tensors import Family, Layout
from numpy.typing import NDArray

from holter_monitor.consistency.rounds import Round
from holter_monitor.findings import Finding, Severity

KIND = "tp_duplicate_shards"
DUPLICATE = 0.95
"""Two independent shards pass it once in 6e16 looks (32 dimensions)."""
DEVIATIONS = 6.0
FLOOR = 0.05
"""Mean correlation below which nothing is said: seven times the worst family of real trained weights (benign structure)."""
MEMORY = 200.0
"""Looks at a family after which an old one counts 1/e."""
BLOCK = 64
"""Ranks compared all with all; longer axes are compared in blocks of neighbours."""
KEY_VALUE = re.compile(r"(?<![a-z])(k|v|kv|key|value|keys|values|wk|wv|k_proj|v_proj|kv_proj|wkv)(?![a-z])|key_value", re.I)
_EXPERT = re.compile(r"expert|moe", re.I)


@dataclass
class Pooled:
    """Correlations of one family over pairs and rounds, fading."""

    total: float = 0.0
    weight: float = 0.0
    squares: float = 0.0
    newest: float = 0.0
    """The largest correlation of the last look."""

    def learn(self, values: NDArray[np.float64]) -> None:
        keep = 1.0 - 1.0 / MEMORY
        self.total = self.total * keep + float(values.sum())
        self.weight = self.weight * keep + len(values)
        self.squares = self.squares * keep**2 + len(values)
        self.newest = float(values.max())

    @property
    def mean(self) -> float:
        return self.total / self.weight if self.weight else 0.0

    @property
    def deviations(self) -> float:
        return self.total * float(np.sqrt(SKETCH / self.squares)) if self.squares else 0.0


@dataclass
class Alike:
    """Open trouble on one axis."""

    onset: int
    families: dict[str, float] = field(default_factory=dict)
    ranks: list[int] = field(default_factory=list)
    severity: int = 0


@dataclass(kw_only=True)
class Shards:
    """Judges the shard sketches of rounds; `troubles` by scope, `pooled` by family and axis."""

    pooled: dict[str, Pooled] = field(default_factory=dict)
    troubles: dict[str, Alike] = field(default_factory=dict)

    def judge(self, round_: Round) -> list[Finding]:
        findings: list[Finding] = []
        for layout, part in round_.by_layout():
            family = layout.family(round_.index)
            if family is None:
                continue
            for axis in family.axes:
                if axis in part.axes:
                    findings += self._family(layout, family, axis, part)
        return findings

    def _family(self, layout: Layout, family: Family, axis: str, part: Round) -> list[Finding]:
        # Ranks that only repeat a replica add no independent look; of each set of replicas the first is taken.
        replicas = [other for other in part.axes if family.tensors[0].axes.get(other) == "R"]
        first = np.all([part.place(other) <= part.place(other).min() for other in replicas] + [np.ones(part.of_ranks, bool)], axis=0)
        left, right, values = correlations(part.only(first), axis, family.tensors[0].axes[axis], layout.sizes.get(axis, 1))
        if not len(values):
            return []
        chosen = part.only(first)
        pooled = self.pooled.setdefault(f"{family.name} over {axis}", Pooled())
        pooled.learn(values)
        alike = values > DUPLICATE
        floor = max(FLOOR, DEVIATIONS / float(np.sqrt(family.sampled * len(values))))
        if alike.any():
            ranks = chosen.ranks[np.unique(np.concatenate([left[alike], right[alike]]))].tolist()
            return self._say(family, axis, part.step, ranks, float(values.max()), pairs=(int(alike.sum()), len(values)))
        if pooled.deviations > DEVIATIONS and pooled.mean > floor:
            return self._say(family, axis, part.step, chosen.ranks.tolist(), pooled.mean, pairs=(0, len(values)))
        return self._unlike(family, axis, part.step)

    def begin_anew(self) -> None:
        """A new attempt: correlations are learned again; open trouble waits to be seen again, or healed."""
        self.pooled = {}

    def _unlike(self, family: Family, axis: str, step: int) -> list[Finding]:
        """The family is unlike now: after a restart with other weights, trouble that it stood for is over with its last family."""
        over = []
        for scope, trouble in list(self.troubles.items()):
            if scope.endswith(f" over {axis}") and trouble.families.pop(family.name, None) is not None and not trouble.families:
                del self.troubles[scope]
                over.append(_over(trouble, scope, step))
        return over

    def _say(self, family: Family, axis: str, step: int, ranks: list[int], r: float, *, pairs: tuple[int, int]) -> list[Finding]:
        severity, scope, others = self._weight(family, axis, pairs)
        trouble = self.troubles.get(scope)
        is_new = trouble is None
        if trouble is None:
            trouble = self.troubles[scope] = Alike(step)
        if not is_new and family.name in trouble.families and severity <= trouble.severity:
            return []
        trouble.families[family.name] = r
        trouble.ranks = sorted({*trouble.ranks, *ranks})[:4096]
        trouble.severity = max(trouble.severity, severity)
        return [_finding(trouble, scope, family, axis, step, r=r, pairs=pairs, others=others)]

    def _weight(self, family: Family, axis: str, pairs: tuple[int, int]) -> tuple[Severity, str, str]:
        """Severity, scope, and what else it may be. Families that are known to be alike for a good reason are spoken of softly."""
        others_unlike = any(
            pooled.newest < 0.6 for name, pooled in self.pooled.items() if name.endswith(f" over {axis}") and not KEY_VALUE.search(name)
        )
        if family.tensors[0].axes[axis] == "?":
            return Severity.INFO, f"undeclared shards over {axis}", "a replicated tensor that was not declared"
        if pairs[0] and KEY_VALUE.search(family.name) and others_unlike:
            return Severity.INFO, f"key-value shards over {axis}", "key and value heads that are fewer than ranks"
        if axis.startswith("ep") and _EXPERT.search(family.name):
            return Severity.WARNING, f"shards over {axis}", "experts upcycled from one dense layer"
        return Severity.CRITICAL, f"shards over {axis}", "key-value head replication; a weight marked as sharded that is replicated"


def correlations(part: Round, axis: str, how: str, size: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """`(left, right, r)` of all pairs along `axis`: places in `part`, and the correlation of their sketches. Constant shards are skipped."""
    ids = part.groups([axis])
    sketches = part.floats(Slot.SHARD, SKETCH)
    norms = np.linalg.norm(sketches, axis=1)
    usable = np.isfinite(norms) & (norms > 0)
    unit = np.divide(sketches, norms[:, None], where=usable[:, None], out=np.zeros_like(sketches))
    place = part.place(axis)
    order = np.lexsort((place, ids))
    order = order[usable[order]]
    lefts, rights, values = [], [], []
    blocks: dict[int, list[NDArray[np.intp]]] = {}
    for group in np.split(order, np.flatnonzero(np.diff(ids[order])) + 1):
        for start in range(0, len(group), BLOCK):
            members = group[start : start + BLOCK]
            blocks.setdefault(len(members), []).append(members)
    for count, groups in blocks.items():
        if count < 2:
            continue
        members = np.stack(groups)
        r = np.einsum("gik,gjk->gij", unit[members], unit[members])
        i, j = np.triu_indices(count, 1)
        lefts.append(members[:, i].ravel())
        rights.append(members[:, j].ravel())
        values.append(r[:, i, j].ravel())
    if not values:
        none = np.empty(0, np.intp)
        return none, none, np.empty(0)
    left, right, r = np.concatenate(lefts), np.concatenate(rights), np.concatenate(values)
    if how[:1] == "B" and size > 1:
        # Replicated in blocks: neighbours of one block are alike by declaration, and two blocks must still be unlike.
        block = place * int(how[1:]) // size
        apart = block[left] != block[right]
        left, right, r = left[apart], right[apart], r[apart]
    return left, right, r


def _finding(trouble: Alike, scope: str, family: Family, axis: str, step: int, *, r: float, pairs: tuple[int, int], others: str) -> Finding:
    ranks = trouble.ranks
    named = ", ".join(map(str, ranks[:8])) + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")
    count = len(trouble.families)
    more = f" (and {count - 1} more tensor families)" if count > 1 else ""
    what = f"are the same (r = {r:.3f})" if pairs[0] else f"are correlated (mean r = {r:.3f})"
    evidence: dict[str, Any] = {
        "axis": axis,
        "families": {name: round(value, 4) for name, value in list(trouble.families.items())[:64]},
        "pairs_alike": pairs[0],
        "pairs": pairs[1],
        "chance": "two independent shards correlate above 0.95 once in 6e16 looks",
        "usual_cause": f"the same random seed on all {axis} ranks when the weights were initialised",
        "remedy": f"seed with `seed + {axis}_rank`, or initialise inside the framework's model-parallel generator; then initialise again: "
        "duplicated shards stay duplicated however long they are trained",
        "legitimate": others,
        "declare": f'run.watch(..., declare={{r"{_pattern(family.name)}": {{"{axis}": "R"}}}}), or holter.parallel.replicated_in_blocks(n)',
        "window": [max(0, trouble.onset - 50), step],
    }
    return Finding(
        kind=KIND,
        severity=Severity(trouble.severity),
        scope=scope,
        onset_step=trouble.onset,
        detected_step=step,
        ranks=tuple(ranks[:64]),
        score=r / DUPLICATE if pairs[0] else r / FLOOR,
        summary=f"Shards of {family.name} on {axis} ranks {named} {what}{more}. Usual cause: the same seed on all {axis} ranks at "
        f"initialisation. May also be: {others}; declare it then",
        evidence=evidence,
    )


def _over(trouble: Alike, scope: str, step: int) -> Finding:
    return Finding(
        kind=KIND,
        severity=Severity(trouble.severity),
        scope=scope,
        onset_step=trouble.onset,
        detected_step=step,
        end_step=step,
        ranks=tuple(trouble.ranks[:64]),
        summary=f"{scope.capitalize()} are unlike again since step {step}",
        evidence={"window": [max(0, trouble.onset - 50), step]},
    )


def _pattern(family: str) -> str:
    return re.escape(family).replace(r"\*", r"\d+")
