"""A GPU's own word that it is ill: XID errors with their meaning, memory errors that grow, a GPU that fell off the bus."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from holter.frame import Event
from numpy.typing import NDArray

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.ranks import named
from holter_monitor.stream.steps import Step, Topology
from holter_monitor.xids import MEMORY, UNKNOWN, XIDS, Xid

COUNTERS: dict[str, tuple[str, float, Severity, str]] = {
    "gpu_ecc_uncorrected_total": ("uncorrected memory errors", 1, Severity.CRITICAL, MEMORY),
    "gpu_remapped_rows_total": (
        "remapped memory rows",
        1,
        Severity.WARNING,
        "reset the GPU at the next occasion: the row is replaced then",
    ),
    "gpu_ecc_corrected_total": ("corrected memory errors", 100, Severity.WARNING, "watch it; " + MEMORY),
    "gpu_nvlink_errors_total": ("NVLink errors", 100, Severity.WARNING, "run dcgmi diag -r 3 on the node"),
    "gpu_pcie_replays_total": ("PCIe replays", 1000, Severity.WARNING, "check the riser and the PCIe link width"),
}
"""Counters that only grow: their name, how much growth since the attempt's start is worth a word, how loud, what to do."""


@dataclass(kw_only=True)
class GpuError:
    """Every XID is said by GPU and code, with how often it came: gauges that never reset hide the second one (DCGM#277).

    Counters are taken relative to their first value, so an old error of a GPU is no news. Cost: 60 µs a step and counter for 16,384 ranks.
    State: 16 bytes a rank and counter.
    """

    kind: ClassVar[str] = "gpu_error"
    said: dict[str, list[int]] = field(init=False, default_factory=dict)
    """Scope -> [onset step, how often]."""
    first: dict[str, NDArray[np.float64]] = field(init=False, default_factory=dict)
    told: dict[str, NDArray[np.float64]] = field(init=False, default_factory=dict)
    """Growth of each rank's counter from which it is said (again)."""
    onsets: dict[str, int] = field(init=False, default_factory=dict)
    attempt: str = field(init=False, default="")
    step: int = field(init=False, default=0)

    def observe(self, step: Step) -> list[Finding] | None:
        if step.attempt != self.attempt:
            self.attempt, self.first, self.told, self.onsets = step.attempt, {}, {}, {}
        self.step = step.number
        said: list[Finding] = []
        for metric, (_, least, _, _) in COUNTERS.items():
            column = step.column(metric)
            if column is None:
                continue
            values = np.where(column[1] & np.isfinite(column[0]), column[0], np.nan)
            first = self.first.get(metric)
            if first is None or len(first) != len(values):
                self.first[metric], self.told[metric] = values.copy(), np.full(len(values), float(least))
                continue
            fresh = np.isnan(first) | (values < first)  # first seen now, or the counter was reset
            first[fresh] = values[fresh]
            grown = values - first
            loud = np.flatnonzero(grown >= self.told[metric])
            if len(loud):
                self.told[metric][loud] = 2.0 * grown[loud]
                said += [self._counted(metric, int(place), float(grown[place]), step) for place in loud[:64]]
        return said or None

    def hear(self, event: Event, topology: Topology) -> Finding | None:
        if event["event"] != "gpu_error":
            return None
        attrs, rank, step = event.get("attrs") or {}, event.get("rank"), event.get("step")
        code = attrs.get("xid")
        xid = XIDS.get(code, UNKNOWN) if isinstance(code, int) else Xid("GPU error", Severity.WARNING, MEMORY)
        if "off the bus" in str(attrs.get("text", "")).lower():
            xid, code = XIDS[79], 79
        where = topology.nodes([rank]) if isinstance(rank, int) else ()
        gpu = str(attrs.get("gpu", topology.gpu_of.get(rank, "?") if isinstance(rank, int) else "?"))[:60]
        node = where[0] if where else str(attrs.get("host", ""))[:60]
        scope = f"gpu {gpu} of {node or 'an unknown node'}, xid {code if code is not None else 'none'}"
        at = step if isinstance(step, int) and step >= 0 else self.step
        if scope not in self.said and len(self.said) >= 1024:
            return None
        onset, count = self.said.get(scope, [at, 0])
        self.said[scope] = [onset, count + 1]
        if count + 1 not in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024):
            return None
        text = str(attrs.get("text", "")).replace("\n", " ")[:160]
        named_code = f"XID {code}, {xid.meaning}" if code is not None else xid.meaning
        return Finding(
            kind=self.kind,
            severity=xid.severity,
            scope=scope,
            onset_step=onset,
            detected_step=max(at, onset),
            ranks=(rank,) if isinstance(rank, int) else (),
            nodes=(node,) if node else (),
            score=float(count + 1),
            summary=f"GPU {gpu}{f' of {node}' if node else ''}: {named_code}{f' ({count + 1} times)' if count else ''}; {xid.action}",
            evidence={
                "xid": code if isinstance(code, int) else None,
                "meaning": xid.meaning,
                "action": xid.action,
                "count": count + 1,
                "text": text,
                "window": [max(0, onset - 50), max(at, onset)],
            },
        )

    def _counted(self, metric: str, place: int, grown: float, step: Step) -> Finding:
        what, _, severity, action = COUNTERS[metric]
        rank = int(step.ranks[place])
        onset = self.onsets.setdefault(f"{metric}|{rank}", step.number)
        nodes = step.topology.nodes([rank])
        return Finding(
            kind=self.kind,
            severity=severity,
            scope=f"{metric} of rank {rank}",
            onset_step=onset,
            detected_step=step.number,
            metric=metric,
            ranks=(rank,),
            nodes=nodes,
            score=grown,
            summary=f"{grown:,.0f} {what} on the GPU of {named([rank])}{f' ({nodes[0]})' if nodes else ''} since this attempt began; {action}",
            evidence={
                "grown": grown,
                "total": float(self.first[metric][place] + grown),
                "action": action,
                "window": [max(0, onset - 50), step.number],
            },
        )
