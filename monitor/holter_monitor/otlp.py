"""OTLP metrics → points. What Megatron-LM, JAX and other programs export already becomes a run, without a line of ours in them. Pure.

A resource is a run: `holter.project` (or `service.namespace`) and `holter.run` (or `service.name`); `host.name` is its node. A data point's `rank` and
`step` (or `iteration`) are attributes, of the point or of the resource. Where no step is told, each new time of a rank is the next step.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from holter.layout import MAX_NAME
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, NumberDataPoint

NO_VALUE = 1
"""The flag of a data point that says that there is none."""
PREFIX = re.compile(r"^(megatron\.training|training|train)\.")
NAMES = {
    "learning_rate": ("lr", 1.0),
    "lm loss": ("loss", 1.0),
    "lm_loss": ("loss", 1.0),
    "step_duration_ms": ("step_time_seconds", 1e-3),
    "step_time_ms": ("step_time_seconds", 1e-3),
    "tokens_per_sec": ("tokens_per_second", 1.0),
    "memory_allocated_gb": ("gpu_memory_used_bytes", 1e9),
}
"""Other programs' words for ours, and the factor between the units."""


@dataclass(slots=True)
class Told:
    """What one resource told of one run: points by `(rank, step or None, time_ns)`."""

    project: str
    run: str
    node: str
    points: dict[tuple[int, int | None, int], dict[str, float]] = field(default_factory=dict)


@dataclass(slots=True)
class Export:
    told: list[Told] = field(default_factory=list)
    rejected: int = 0
    """Data points that are no numbers of a training run: summaries, exponential histograms, bad names."""


def read(request: ExportMetricsServiceRequest) -> Export:
    """The points of an export."""
    export = Export()
    for resource in request.resource_metrics:
        facts = _attributes(resource.resource.attributes)
        told = Told(
            project=str(facts.get("holter.project") or facts.get("service.namespace") or "default")[:MAX_NAME],
            run=str(facts.get("holter.run") or facts.get("service.name") or "otlp")[:MAX_NAME],
            node=str(facts.get("host.name") or facts.get("service.instance.id") or "otlp")[:MAX_NAME],
        )
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                export.rejected += _take(told, metric, facts)
        if told.points:
            export.told.append(told)
    return export


def _take(told: Told, metric: Metric, facts: Mapping[str, Any]) -> int:
    """Put a metric's points into `told`; how many were none."""
    name, factor = canonical(metric.name)
    kind = metric.WhichOneof("data")
    if not name or len(name) > MAX_NAME or not name.isprintable() or kind not in ("gauge", "sum", "histogram"):
        return len(getattr(metric, kind).data_points) if kind else 0
    rejected = 0
    for point in getattr(metric, kind).data_points:
        value = _mean(point) if kind == "histogram" else _number(point)
        if value is None:
            rejected += 0 if point.flags & NO_VALUE else 1
            continue
        attributes = {**facts, **_attributes(point.attributes)}
        key = (_whole(attributes, ("rank", "global_rank", "process.rank"), 2**31) or 0, _whole(attributes, ("step", "iteration"), 2**62))
        told.points.setdefault((*key, point.time_unix_nano), {})[name] = value * factor
    return rejected


def canonical(name: str) -> tuple[str, float]:
    """Our name for a metric and the factor to our unit."""
    bare = PREFIX.sub("", name)
    return NAMES.get(bare, (bare, 1.0))


def _attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    return dict(_plain(pairs))


def _plain(pairs: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        if kind in ("string_value", "int_value", "double_value"):
            yield pair.key, getattr(pair.value, kind)


def _whole(attributes: Mapping[str, Any], names: tuple[str, ...], limit: int) -> int | None:
    for name in names:
        value = attributes.get(name)
        if isinstance(value, str) and re.fullmatch(r"\d{1,18}", value):
            value = int(value)
        if isinstance(value, int) and 0 <= value < limit:
            return value
    return None


def _number(point: NumberDataPoint) -> float | None:
    kind = point.WhichOneof("value")
    return None if kind is None or point.flags & NO_VALUE else float(getattr(point, kind))


def _mean(point: Any) -> float | None:
    """A histogram's mean: what a step's worth of observations came to."""
    return point.sum / point.count if point.count and point.HasField("sum") and not point.flags & NO_VALUE else None
