"""Equal where it must be equal, unlike where it must be unlike: fingerprints of a model's tensors on every rank, compared by the collector.

No collective, no synchronisation of the device, no change to the training's communication. torch is imported by whoever calls `watch`.
"""

from __future__ import annotations

import sys
from typing import Any

from holter.parallel.placements import replicated_in_blocks
from holter.parallel.preflight import preflight

__all__ = ["preflight", "replicated_in_blocks", "watch"]


def watch(run: Any, model: Any, optimizer: Any = None, **options: Any) -> Any:
    """Begin to watch; the answer is the `holter.parallel.watching.Watch`, or None for a run that records nothing.

    Options, all keyword: `mesh` (a torch DeviceMesh, or `{"dp": (0, 4), "tp": (1, 2)}`; else read from DTensor parameters, Megatron or
    `holter.init`), `declare` (`{regex: {"tp": "R" | ("S", 0) | "P" | replicated_in_blocks(n)}}` or `{regex: "skip"}`), `tied` (groups of
    names that are one tensor), `every` (optimizer steps, default 10), `fraction` (share of the tensors that each fingerprint looks at,
    default 0.1), `at_rest` (check that nothing changes between optimizer steps), `masters` (look at fp32 master copies where there are).
    """
    from holter.parallel.watching import begin

    if run.is_off:
        return None
    return begin(run, model, optimizer, known_mesh=run.mesh, report=_say if run.rank == 0 else None, **options)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
