"""The rules of live fingerprints on a saved checkpoint: here the numbers themselves are at hand, so nothing is sketched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holter_monitor.checkpoints.arrays import Array
from holter_monitor.checkpoints.stored import Checkpoint, Part, StoredTensor
from holter_monitor.consistency.replicas import INITIAL
from holter_monitor.consistency.shards import DEVIATIONS, DUPLICATE, FLOOR, KEY_VALUE
from holter_monitor.findings import Finding, Severity

ROWS, COLUMNS = 512, 512
"""Sampled of each matrix: 65,536 double differences, so two independent shards correlate within ±0.02 (five deviations)."""
DEGREES = (2, 4, 8)
"""Tensor-parallel sizes that a consolidated matrix is tried for."""
MAX_PARTS = 64
_COPY = re.compile(r"norm|(^|[._])ln(_|\d|\.)|router|gate\.weight$|gate\.wg|position|rotary|inv_freq|pos_emb|alibi", re.I)
_ROW_BIAS = re.compile(r"(dense|linear_proj|linear_fc2|dense_4h_to_h|o_proj|down_proj|c_proj|wo|w2)\.bias$", re.I)
_SKIPPED = re.compile(r"position|rotary|inv_freq|pos_emb|mask|alibi|_extra_state", re.I)


@dataclass
class Family:
    """One role over the layers: the correlations of its shards and the differences of its copies."""

    name: str
    values: list[float] = field(default_factory=list)
    """The largest correlation of each tensor."""
    means: list[float] = field(default_factory=list)
    samples: int = 0
    alike: list[str] = field(default_factory=list)
    ranks: set[int] = field(default_factory=set)
    pairs: int = 0
    axis: str = ""


@dataclass
class Audit:
    """What the checkpoint says. `compared` counts tensors that had something to compare; `skipped` names those that could not be."""

    findings: list[Finding] = field(default_factory=list)
    compared: int = 0
    shards: int = 0
    copies: int = 0
    skipped: list[str] = field(default_factory=list)


def audit(checkpoint: Checkpoint) -> Audit:
    """Judges every tensor. Raises `CheckpointError` where a file turns out to be damaged."""
    answer = Audit()
    families: dict[str, Family] = {}
    apart: list[tuple[str, float, list[int]]] = []
    for tensor in checkpoint.tensors:
        role = role_of(tensor)
        if role == "copies":
            difference = _difference(tensor.parts)
            answer.copies += 1
            if difference:
                apart.append((tensor.name, *difference))
        elif role == "shards" and _look(tensor, families):
            answer.shards += 1
        else:
            answer.skipped.append(tensor.name)
    answer.compared = answer.shards + answer.copies
    answer.findings = [*_shard_findings(checkpoint, families), *_copy_findings(checkpoint, apart)]
    return answer


def role_of(tensor: StoredTensor) -> str:
    """ "shards", "copies" or "" (nothing to compare). Rank files do not say how a tensor lies; its name and its dimensions do."""
    dimensions = len(tensor.parts[0].array.shape)
    if _SKIPPED.search(tensor.name) or tensor.parts[0].array.dtype not in ("float32", "float16", "bfloat16", "float64"):
        return ""
    if tensor.kind == "whole":
        return "shards" if dimensions >= 2 and not _COPY.search(tensor.name) else ""
    if len(tensor.parts) < 2 or len({part.array.shape for part in tensor.parts}) > 1:
        return ""
    if tensor.kind == "parts" and (_ROW_BIAS.search(tensor.name) or _COPY.search(tensor.name)):
        return "copies"
    return "shards" if dimensions >= 2 else ""


def family_of(name: str) -> str:
    return re.sub(r"(?<![A-Za-z0-9])\d+(?![A-Za-z0-9])", "*", name)


# -------------------------------------------------------------------- shards


def _look(tensor: StoredTensor, families: dict[str, Family]) -> bool:
    """Learns the correlations of a tensor's shards. False where it is constant or too small."""
    looked = False
    for axis, shards in _splits(tensor):
        sampled = [(place, _double_differences(values)) for place, values in shards]
        usable = [(place, values) for place, values in sampled if values is not None]
        if len(usable) < 2:
            continue
        looked = True
        family = families.setdefault(f"{family_of(tensor.name)} {axis}", Family(family_of(tensor.name), axis=axis))
        unit = np.stack([values for _, values in usable])
        r = unit @ unit.T
        pairs = list(combinations(range(len(usable)), 2))
        values = np.array([r[i, j] for i, j in pairs])
        family.values.append(float(values.max()))
        family.means.append(float(values.mean()))
        family.samples += unit.shape[1] * len(pairs)
        family.pairs = max(family.pairs, len(pairs))
        if values.max() > DUPLICATE:
            family.alike.append(tensor.name)
            family.ranks |= {usable[k][0] for pair, value in zip(pairs, values, strict=True) if value > DUPLICATE for k in pair}
    return looked


def _splits(tensor: StoredTensor) -> Iterator[tuple[str, list[tuple[int, NDArray[np.float32]]]]]:
    """The shards as they are stored; of a consolidated matrix its halves, quarters and eighths in both directions."""
    if tensor.kind != "whole":
        yield "", [(part.place, _matrix(part.array)) for part in tensor.parts[:MAX_PARTS]]
        return
    whole = _matrix_view(tensor.parts[0].array)
    for dimension in (0, 1):
        for degree in DEGREES:
            size = whole.shape[dimension] // degree
            if whole.shape[dimension] % degree or size < 32 or whole.shape[1 - dimension] < 32:
                continue
            cut = [whole[k * size : (k + 1) * size] if dimension == 0 else whole[:, k * size : (k + 1) * size] for k in range(degree)]
            yield (
                f"{'rows' if dimension == 0 else 'columns'} in {degree}",
                [(k, _sampled(part, tensor.parts[0].array)) for k, part in enumerate(cut)],
            )


def _matrix_view(array: Array) -> NDArray[Any]:
    raw = array.raw()
    return raw.reshape(-1, raw.shape[-1])


def _matrix(array: Array) -> NDArray[np.float32]:
    return _sampled(_matrix_view(array), array)


def _sampled(matrix: NDArray[Any], array: Array) -> NDArray[np.float32]:
    """Evenly spaced rows and columns, the same of every shard of a shape."""
    rows = np.linspace(0, matrix.shape[0] - 1, min(ROWS, matrix.shape[0] & ~1)).astype(np.intp)
    columns = np.linspace(0, matrix.shape[1] - 1, min(COLUMNS, matrix.shape[1] & ~1)).astype(np.intp)
    part = np.asarray(matrix[rows])[:, columns]
    return Array(part.shape, array.dtype, lambda: part).values()


def _double_differences(matrix: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Unit length; None for a matrix that is constant, not finite, or too small to be judged."""
    rows, columns = matrix.shape[0] & ~1, matrix.shape[1] & ~1
    if rows < 2 or columns < 2 or rows * columns < 1024:
        return None
    x = matrix[:rows, :columns]
    d = (x[::2, ::2] - x[::2, 1::2] - x[1::2, ::2] + x[1::2, 1::2]).ravel()
    norm = float(np.linalg.norm(d))
    return d / np.float32(norm) if np.isfinite(norm) and norm > 0 else None


def _shard_findings(checkpoint: Checkpoint, families: dict[str, Family]) -> list[Finding]:
    others_unlike = any(not family.alike for family in families.values() if not KEY_VALUE.search(family.name))
    said: list[Finding] = []
    groups: dict[tuple[Severity, str], list[Family]] = {}
    for family in families.values():
        if family.alike:
            soft = others_unlike and bool(KEY_VALUE.search(family.name))
            key = (Severity.INFO, "key-value shards") if soft else (Severity.CRITICAL, "shards")
        elif _is_correlated(family):
            key = (Severity.CRITICAL, "correlated shards")
        else:
            continue
        groups.setdefault(key, []).append(family)
    for (severity, scope), members in groups.items():
        said.append(_shard_finding(checkpoint, severity, scope, members))
    return said


def _is_correlated(family: Family) -> bool:
    mean = float(np.mean(family.means))
    return mean > max(FLOOR, DEVIATIONS / float(np.sqrt(family.samples)))


def _shard_finding(checkpoint: Checkpoint, severity: Severity, scope: str, members: list[Family]) -> Finding:
    first = max(members, key=lambda family: max(family.values))
    count = sum(len(family.alike) or len(family.values) for family in members)
    names = sorted({family.name for family in members})
    ranks = sorted(set().union(*(family.ranks for family in members)))
    r = max(first.values) if first.alike else float(np.mean(first.means))
    how = "hold the same numbers" if first.alike else "are correlated"
    where = f"shards of tensor-parallel ranks {', '.join(map(str, ranks[:8]))}" if ranks else "shards"
    split = f" ({first.axis})" if first.axis else ""
    return Finding(
        kind="tp_duplicate_shards",
        severity=severity,
        scope=scope,
        onset_step=checkpoint.step,
        detected_step=checkpoint.step,
        ranks=tuple(ranks[:64]) if not first.axis else (),
        score=r / DUPLICATE,
        summary=f"{where} {how} in {count} tensors: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}{split} (r = {r:.3f}). "
        "Usual cause: the same seed on all tensor-parallel ranks at initialisation",
        evidence={
            "families": {family.name: round(max(family.values), 4) for family in members[:64]},
            "tensors": count,
            "split": first.axis or None,
            "usual_cause": "the same random seed on all tensor-parallel ranks when the weights were initialised",
            "remedy": "seed with `seed + tp_rank` and initialise again; further training does not separate duplicated MLP units",
            "legitimate": "key and value heads that are fewer than ranks; experts upcycled from one dense layer; a tensor that is replicated",
        },
    )


# -------------------------------------------------------------------- copies


def _difference(parts: list[Part]) -> tuple[float, list[int]] | None:
    """`(largest difference over the size of the values, ranks that differ from the most common copy)`; None where all are equal."""
    raws = [np.ascontiguousarray(part.array.raw()) for part in parts]
    keys = [raw.tobytes() for raw in raws]
    if all(key == keys[0] for key in keys):
        return None
    common = max(set(keys), key=lambda key: (keys.count(key), -keys.index(key)))
    reference = parts[keys.index(common)].array.values()
    guilty = [part.place for part, key in zip(parts, keys, strict=True) if key != common]
    if keys.count(common) * 2 <= len(keys):
        guilty = [part.place for part in parts]
    size = float(np.sqrt(np.mean(np.square(reference, dtype=np.float64)))) or 1.0
    far = max(float(np.max(np.abs(part.array.values() - reference), initial=0.0)) for part in parts)
    return (far / size if np.isfinite(far) else float("inf")), sorted(guilty)


def _copy_findings(checkpoint: Checkpoint, apart: list[tuple[str, float, list[int]]]) -> list[Finding]:
    if not apart:
        return []
    worst = max(apart, key=lambda entry: entry[1])
    families = sorted({family_of(name) for name, _, _ in apart})
    ranks = sorted(set().union(*(ranks for _, _, ranks in apart)))
    return [
        Finding(
            kind="replica_mismatch",
            severity=Severity.CRITICAL if worst[1] > INITIAL else Severity.WARNING,
            scope="copies",
            onset_step=checkpoint.step,
            detected_step=checkpoint.step,
            ranks=tuple(ranks[:64]),
            score=min(worst[1] / INITIAL, 1e9),
            summary=f"{len(apart)} tensors that every tensor-parallel rank must hold alike differ: {', '.join(families[:3])}"
            f"{' …' if len(families) > 3 else ''}; by up to {worst[1]:.2g} of their size ({worst[0]})",
            evidence={
                "families": families[:64],
                "tensors": [name for name, _, _ in apart][:64],
                "usual_cause": "their gradients are not summed over the tensor-parallel ranks (sequence parallelism, a missing attribute)",
                "legitimate": "a tensor that is sharded although its name says norm or router",
            },
        )
    ]
