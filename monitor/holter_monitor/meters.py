"""What the collector says of itself at `/metrics`; docs/architecture.md lists the names. One registry an app."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from holter_monitor import __version__

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Meters:
    """Counters that the parts raise as they work; what can be asked at scrape time is a collector of its own (`ask`)."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Gauge("holter_build_info", "Always 1.", ["version"], registry=registry).labels(__version__).set(1)
        self.frames = Counter("holter_frames", "Frames by what became of them.", ["outcome"], registry=registry)
        self.points = Counter("holter_points", "Points in stored frames.", registry=registry)
        self.ingest = Histogram(
            "holter_ingest_seconds", "From the last byte of a frame to its durable answer.", buckets=SECONDS, registry=registry
        )
        self.commits = Counter("holter_log_commits", "Group commits of the frame log.", ["ok"], registry=registry)
        self.refused = Counter("holter_requests_refused", "Requests that the door refused, by reason.", ["reason"], registry=registry)
        self.failures = Counter("holter_consumer_failures", "Batches that had to be tried again.", ["consumer"], registry=registry)
        self.refused_records = Counter(
            "holter_records_refused",
            "Records that the control store refused and that were set aside, by kind.",
            ["kind"],
            registry=registry,
        )
        self.left_out = Counter("holter_points_left_out", "Points that the collector left out, by reason.", ["reason"], registry=registry)
        self._begin_at_nought()
        self.findings = Counter("holter_findings", "Findings by kind.", ["kind"], registry=registry)

    def _begin_at_nought(self) -> None:
        """What alerts watch for: a series that comes into being with its first event shows Prometheus no increase."""
        for counter, outcomes in (
            (self.frames, ("refused", "rejected", "unreadable")),
            (self.commits, ("true", "false")),
            (self.refused, ("token",)),
            (self.failures, ("samples", "detection")),
            (self.refused_records, ("frame", "summary", "finding")),
            (self.left_out, ("metric_overflow",)),
        ):
            for outcome in outcomes:
                counter.labels(outcome)

    def ask(self, collectors: Iterable[Collector]) -> None:
        for collector in collectors:
            self.registry.register(collector)
