"""Replicas of one tensor must be equal, bit for bit: whose are not, how far apart they are, and which tensor, element and bit it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from holter.checksum import locate
from holter.fingerprint import BUCKETS, DRIFT, Slot
from holter.tensors import Chunk, Layout, Piece, place_of, rows_of
from numpy.typing import NDArray

from holter_monitor.consistency.rounds import STAGE_AXES, Ints, Round
from holter_monitor.findings import Finding, Severity

KIND = "replica_mismatch"
DRIFTING = 0.02
"""Distance over the size of one update, below which it is the arithmetic's own noise (measured: at most 9e-4 after 300 steps, 1.3e-2 in bf16)."""
DIVERGED = 0.1
"""Above it replicas are trained apart: a norm whose gradient is not reduced stands at 0.14 after one step."""
INITIAL = 1e-3
"""Before the first step: distance over the size of the tensors themselves."""
CALM_ROUNDS = 3
MAX_SUSPECTS = 512
_MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64).view(np.int64)


@dataclass
class Apart:
    """Open trouble: replicas that differ over some axes."""

    onset: int
    severity: int
    suspects: dict[str, bool] = field(default_factory=dict)
    """Tensors that stood in a bad bucket, and whether they were seen in a good one since."""
    said: int = 0
    """How many tensors were left when it was last said."""
    calm: int = 0
    ranks: list[int] = field(default_factory=list)
    summary: str = ""


@dataclass(slots=True)
class Mismatch:
    """What one look shows: ranks of `part` (by place) that differ from their group's majority, in which buckets."""

    bad: list[int]
    guilty: list[int]
    is_named: bool
    """Whether the majority names the guilty, or it is one of two."""
    axes: list[str]
    ratio: float
    is_initial: bool
    where: str


@dataclass(kw_only=True)
class Replicas:
    """Judges the checksums of rounds; `troubles` by scope."""

    troubles: dict[str, Apart] = field(default_factory=dict)

    def judge(self, round_: Round) -> list[Finding]:
        findings: list[Finding] = []
        touched: set[str] = set()
        looks = 1
        for layout, part in round_.by_layout():
            looks = max(looks, len(layout.data_chunks))
            for slot, sketch, column, chunk in (
                (Slot.MODEL, Slot.MODEL_SKETCH, 0, layout.model_chunk(round_.index)),
                (Slot.DATA, Slot.DATA_SKETCH, 1, layout.data_chunk(round_.index)),
            ):
                findings += self._block(part, layout, chunk, (slot, sketch, column), touched)
        findings += self._tied(round_, touched)
        return findings + self._calm(round_.step, touched, looks)

    def _block(self, part: Round, layout: Layout, chunk: Chunk, slots: tuple[int, int, int], touched: set[str]) -> list[Finding]:
        axes = [axis for axis in chunk.axes if axis in part.axes]
        if not axes or not chunk.pieces:
            return []
        keys = (part.words[:, slots[0] : slots[0] + 3 * BUCKETS].reshape(-1, BUCKETS, 3) * _MIX).sum(2)
        ids = part.groups(axes)
        differs = keys != keys[_firsts(ids)[ids]]
        buckets = chunk.buckets(part.index)
        if not differs.any():
            self._clear(buckets, [])
            return []
        found = _examine(part, keys, ids, differs, buckets=buckets, slots=slots, axes=axes)
        scope = f"replicas over {'+'.join(found.axes)}"
        touched.add(scope)
        self._clear(buckets, found.bad)
        names = {piece.tensor.name for bucket in found.bad for piece in buckets[bucket]}
        return self._say(scope, part.step, found, names, len(layout.tensors))

    def _clear(self, buckets: list[list[Piece]], bad: list[int]) -> None:
        """Tensors seen in a good bucket are innocent of every open trouble."""
        if self.troubles:
            good = {piece.tensor.name for place, bucket in enumerate(buckets) if place not in bad for piece in bucket}
            for trouble in self.troubles.values():
                trouble.suspects.update((name, True) for name in good & trouble.suspects.keys())

    def _say(self, scope: str, step: int, found: Mismatch, names: set[str], of_tensors: int) -> list[Finding]:
        severity = _severity(found)
        trouble = self.troubles.get(scope)
        is_new = trouble is None
        if trouble is None:
            trouble = self.troubles[scope] = Apart(step, severity)
        for name in sorted(names)[: MAX_SUSPECTS - len(trouble.suspects)]:
            trouble.suspects.setdefault(name, False)
        trouble.calm = 0
        trouble.ranks = found.guilty[:64]
        left = [name for name, is_innocent in trouble.suspects.items() if not is_innocent]
        is_worse = severity > trouble.severity
        is_nearer = 0 < len(left) <= 3 and len(left) < trouble.said
        if not (is_new or is_worse or is_nearer):
            return []
        trouble.severity, trouble.said = max(trouble.severity, severity), len(left)
        return [_finding(trouble, scope, step, found, left=left, of_tensors=of_tensors)]

    def _tied(self, round_: Round, touched: set[str]) -> list[Finding]:
        """Tensors declared as tied live on different pipeline stages under different names, and must be equal all the same."""
        stages = [axis for axis in round_.axes if axis in STAGE_AXES]
        part = round_.only(round_.words[:, Slot.TIED] != 0)
        if not stages or part.of_ranks < 2:
            return []
        ids = part.groups(stages, same_layout=False)
        keys = part.words[:, Slot.TIED]
        bad = np.flatnonzero(keys != keys[_firsts(ids)[ids]])
        if not len(bad):
            return []
        touched.add("tied tensors")
        ranks = part.ranks[np.isin(ids, ids[bad])].tolist()
        trouble = self.troubles.get("tied tensors")
        if trouble is not None:
            trouble.calm = 0
            return []
        trouble = self.troubles["tied tensors"] = Apart(part.step, Severity.CRITICAL, ranks=ranks[:64])
        names = sorted({name for layout in part.layouts.values() for group in layout.tied for name in group})
        trouble.summary = f"The tied tensors {', '.join(names[:4])} differ between pipeline stages (ranks {_listed(ranks)})"
        evidence = {"tensors": names[:16], "usual_cause": "the gradients of tied embeddings are not summed over the first and last stage"}
        return [_plain(trouble, "tied tensors", part.step, evidence)]

    def _calm(self, step: int, touched: set[str], looks: int) -> list[Finding]:
        over = []
        for scope, trouble in list(self.troubles.items()):
            if scope in touched:
                continue
            trouble.calm += 1
            if trouble.calm >= max(CALM_ROUNDS, looks):
                del self.troubles[scope]
                over.append(_plain(trouble, scope, step, {"equal_rounds": trouble.calm}, end_step=step))
        return over


def _firsts(ids: Ints) -> NDArray[np.intp]:
    return np.unique(ids, return_index=True)[1]


def _examine(
    part: Round,
    keys: Ints,
    ids: Ints,
    differs: NDArray[np.bool_],
    *,
    buckets: list[list[Piece]],
    slots: tuple[int, int, int],
    axes: list[str],
) -> Mismatch:
    slot, sketch, column = slots
    bad = np.flatnonzero(differs.any(0)).tolist()
    sketches = part.floats(sketch, DRIFT) / np.sqrt(DRIFT)
    updates = part.floats(Slot.UPDATE, 2)[:, column]
    guilty: list[int] = []
    is_named, distance, update, size, where = True, 0.0, 0.0, 0.0, ""
    for group in np.unique(ids[differs.any(1)]).tolist():
        members = np.flatnonzero(ids == group)
        values, inverse, counts = np.unique(keys[members][:, bad], axis=0, return_inverse=True, return_counts=True)
        is_majority = bool(counts.max() * 2 > len(members))
        reference = members[inverse.ravel() == counts.argmax()][0]
        apart = members[inverse.ravel() != counts.argmax()]
        is_named = is_named and is_majority
        guilty += part.ranks[apart if is_majority else members].tolist()
        far = np.linalg.norm(sketches[apart] - sketches[reference], axis=1)
        distance = max(distance, float(np.nanmax(far, initial=0.0)))
        update = max(update, float(np.nanmax(updates[members], initial=0.0)))
        size = max(size, float(np.linalg.norm(sketches[reference])))
        if not where and len(bad) == 1 and len(values) == 2:
            change = part.words[apart[0], slot + 3 * bad[0] :][:3] - part.words[reference, slot + 3 * bad[0] :][:3]
            where = located(change, buckets[bad[0]])
    is_initial = update <= 0.0
    ratio = distance / (size if is_initial else update) if (size if is_initial else update) > 0 else 0.0
    return Mismatch(bad, sorted(set(guilty)), is_named, _varying(part, keys, axes), ratio, is_initial, where)


def _varying(part: Round, keys: Ints, axes: list[str]) -> list[str]:
    """The axes along which the values really differ, all else equal."""
    found = []
    for axis in axes:
        ids = part.groups([axis])
        if (keys != keys[_firsts(ids)[ids]]).any():
            found.append(axis)
    return found or axes


def located(change: Ints, bucket: list[Piece]) -> str:
    """ "layers.3.mlp.up.weight[1027, 5], bit 12" where a single element differs; else ""."""
    found = locate(change, rows_of(bucket))
    place = place_of(bucket, found[0], found[1]) if found else None
    if found is None or place is None:
        return ""
    tensor, lane = place
    element, bit = tensor.element(lane, found[2] or 0)
    where = ", ".join(map(str, np.unravel_index(element, tensor.shape))) if tensor.shape else "0"
    return f"{tensor.name}[{where}]" + (f", bit {bit}" if found[2] is not None else ", several bits")


def _severity(found: Mismatch) -> Severity:
    if found.where:
        return Severity.CRITICAL
    if found.is_initial:
        return Severity.CRITICAL if found.ratio > INITIAL else Severity.WARNING
    return Severity.CRITICAL if found.ratio > DIVERGED else Severity.WARNING if found.ratio > DRIFTING else Severity.INFO


def _finding(trouble: Apart, scope: str, step: int, found: Mismatch, *, left: list[str], of_tensors: int) -> Finding:
    over = "+".join(found.axes)
    who = f"rank {found.guilty[0]}" if len(found.guilty) == 1 else f"ranks {_listed(found.guilty)}"
    which = f"{who} {'differs' if len(found.guilty) == 1 else 'differ'} from the majority" if found.is_named else f"one or more of {who}"
    what = found.where or (", ".join(left[:3]) if 0 < len(left) <= 3 else f"{len(left)} of {of_tensors} tensors are suspect")
    far = f"{found.ratio:.2g} of {'their own size' if found.is_initial else 'one update'} apart"
    trouble.summary = f"Replicas over {over} are not equal: {what}; {which}; {far}"
    cause, legitimate = _causes(found)
    evidence: dict[str, Any] = {
        "axes": found.axes,
        "tensors": left[:32],
        "suspects": len(left),
        "distance_over_update": None if found.is_initial else round(found.ratio, 9),
        "distance_over_size": round(found.ratio, 9) if found.is_initial else None,
        "located": found.where or None,
        "majority_names_ranks": found.is_named,
        "usual_cause": cause,
        "legitimate": legitimate,
        "declare": f'run.watch(..., declare={{r"NAME": {{"{found.axes[0]}": ("S", 0)}}}}) where the tensor is not a replica',
    }
    return _plain(trouble, scope, step, evidence, score=found.ratio / DIVERGED)


def _causes(found: Mismatch) -> tuple[str, str]:
    legitimate = "a tensor that is not replicated; per-rank buffers; an arithmetic that differs between ranks' devices"
    if found.where:
        return "a memory error flipped a bit on this rank: drain the node, test its memory, go back to the last checkpoint", legitimate
    if found.is_initial:
        return "replicated parameters were initialised, or loaded, differently on each rank: broadcast them from one", legitimate
    if len(found.bad) == BUCKETS and found.ratio > DIVERGED:
        return "a gradient reduction was skipped on some rank, or its learning rate differs", legitimate
    if found.ratio > DRIFTING:
        return "the gradients of these tensors are not summed over the axis (layer norms under sequence parallelism, routers)", legitimate
    return "the arithmetic is not bitwise reproducible over ranks; watch whether it grows", legitimate


def _plain(trouble: Apart, scope: str, step: int, evidence: dict[str, Any], *, end_step: int | None = None, score: float = 0.0) -> Finding:
    return Finding(
        kind=KIND,
        severity=Severity(trouble.severity),
        scope=scope,
        onset_step=trouble.onset,
        detected_step=step,
        end_step=end_step,
        ranks=tuple(trouble.ranks),
        score=score,
        summary=trouble.summary if end_step is None else f"{scope} are equal again since step {end_step}",
        evidence={**evidence, "window": [max(0, trouble.onset - 50), step]},
    )


def _listed(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks[:8])) + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")
