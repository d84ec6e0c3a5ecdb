"""Holter itself: is the monitor well? A blind monitor must not look healthy."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard, stat
from panels import PROMETHEUS, Target, bar_panel, new, promql, stat_panel, time_panel

RATE = "[$__rate_interval]"


def build() -> dashboard.Dashboard:
    board = new("Holter / Holter itself", "holter-itself", "The collector: what comes in, how far behind it is, whether notices leave.")
    for panel in (*_numbers(), *_intake(), *_consumers(), *_delivery(), *_process()):
        board = board.with_panel(panel)
    return board


def _stat(title: str, query: Target, **settings: object) -> stat.Panel:
    return stat_panel(title, query, **settings).datasource(PROMETHEUS)  # type: ignore[arg-type]


def _numbers() -> list[dashboard.Panel]:
    return [
        _stat("Collectors up", promql('sum(up{job="holter"})')),
        _stat("Behind the log", promql("max(holter_consumer_lag_seconds)"), unit="s", bad_from=60),
        _stat("Refused, a second", promql(f'sum(rate(holter_frames_total{{outcome="refused"}}{RATE})) or vector(0)'), bad_from=0.001),
        _stat("Oldest notice that waits", promql("max(holter_outbox_oldest_seconds)"), unit="s", bad_from=300),
        _stat("Dead notices", promql('sum(holter_outbox_notices{status="dead"}) or vector(0)'), bad_from=1),
        _stat("Disk free", promql("min(holter_disk_free_bytes)"), unit="bytes"),
    ]


def _intake() -> list[dashboard.Panel]:
    bucket = f"sum by (le) (rate(holter_ingest_seconds_bucket{RATE}))"
    return [
        bar_panel("Frames a second, by outcome", promql(f"sum by (outcome) (rate(holter_frames_total{RATE}))", "{{outcome}}"), unit="cps"),
        time_panel("Points a second", promql(f"sum(rate(holter_points_total{RATE}))", "points"), unit="cps"),
        time_panel(
            "From a frame's last byte to its durable answer",
            promql(f"histogram_quantile(0.5, {bucket})", "median"),
            promql(f"histogram_quantile(0.99, {bucket})", "99th percentile", "B"),
            unit="s",
        ),
        bar_panel(
            "Points that agents dropped, a second",
            promql(f"sum by (reason) (rate(holter_points_dropped_total{RATE}))", "{{reason}}"),
            unit="cps",
        ),
    ]


def _consumers() -> list[dashboard.Panel]:
    return [
        time_panel("Behind the log", promql("max by (consumer) (holter_consumer_lag_seconds)", "{{consumer}}"), unit="s"),
        time_panel("Frames to do", promql("max by (consumer) (holter_consumer_lag_frames)", "{{consumer}}")),
        time_panel("Batches tried again", promql(f"sum by (consumer) (rate(holter_consumer_failures_total{RATE}))", "{{consumer}}")),
        time_panel(
            "Seconds since each run's last frame",
            promql("time() - holter_run_last_frame_timestamp_seconds", "{{project}}/{{run}}"),
            unit="s",
        ),
    ]


def _delivery() -> list[dashboard.Panel]:
    return [
        bar_panel("Incidents not resolved", promql("sum by (severity) (holter_incidents)", "{{severity}}")),
        bar_panel(
            "Deliveries a second",
            promql(f"sum by (receiver, outcome) (rate(holter_deliveries_total{RATE}))", "{{receiver}} {{outcome}}"),
            unit="cps",
        ),
        time_panel("Notices in the outbox", promql("sum by (status) (holter_outbox_notices)", "{{status}}")),
        time_panel("Runs by state", promql("sum by (state) (holter_runs)", "{{state}}")),
    ]


def _process() -> list[dashboard.Panel]:
    return [
        time_panel("CPU", promql(f'rate(process_cpu_seconds_total{{job="holter"}}{RATE})', "cores"), span=8),
        time_panel("Memory", promql('process_resident_memory_bytes{job="holter"}', "resident"), unit="bytes", span=8),
        time_panel("Stores on disk", promql("max by (store) (holter_store_bytes)", "{{store}}"), unit="bytes", span=8),
    ]
