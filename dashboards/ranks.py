"""Ranks and GPUs: how far the ranks stand apart, who is the extreme one, and on which node."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from panels import Sql, column, new, project_variable, run_variable, table_panel, time_panel, trend_panel, variable
from queries import SPREAD, by_step, by_time

RECENT = 500
"""Steps that the table of extremes looks back."""


def build() -> dashboard.Dashboard:
    board = new(
        "Holter / Ranks and GPUs",
        "holter-ranks",
        "Spread over ranks, the outliers, and the machines under them.",
        place="/runs/${run}/ranks",
    )
    board = board.with_variable(project_variable()).with_variable(run_variable()).with_variable(_metric())
    for panel in (_spread(), _extreme_rank(), *_extremes(), *_own_work()):
        board = board.with_panel(panel)
    board = board.with_row(dashboard.Row("GPUs"))
    for panel in _gpus():
        board = board.with_panel(panel)
    board = board.with_row(dashboard.Row("Where ranks live"))
    return board.with_panel(_placement()).with_panel(_agents())


def _metric() -> dashboard.QueryVariable:
    return variable(
        "metric",
        "Metric",
        """
        SELECT metric FROM (SELECT DISTINCT metric FROM step_summaries WHERE run = ${run:sqlstring}) m
        ORDER BY metric <> 'compute_seconds', metric
        """,
    )


def _metric_by_step(columns: str) -> Sql:
    # The shared query quotes a metric's name itself; a variable brings its own quotes.
    return Sql(by_step("METRIC", columns).sql.replace("'METRIC'", "${metric:sqlstring}"))


def _spread() -> dashboard.Panel:
    columns = "min(min) AS lowest, avg(median) AS median, max(max) AS highest"
    return trend_panel("$metric: lowest, median and highest rank", _metric_by_step(columns)).span(16)


def _extreme_rank() -> dashboard.Panel:
    columns = 'mode() WITHIN GROUP (ORDER BY min_rank) AS "lowest rank", mode() WITHIN GROUP (ORDER BY max_rank) AS "highest rank"'
    return trend_panel("$metric: which rank is the extreme one", _metric_by_step(columns)).span(8)


def _extremes() -> list[dashboard.Panel]:
    def query(end: str) -> Sql:
        return Sql(
            f"""
            WITH recent AS (
                SELECT DISTINCT ON (step) step, median, {end}, {end}_rank AS rank, attempt FROM step_summaries
                WHERE run = ${{run:sqlstring}} AND metric = ${{metric:sqlstring}} AND {end}_rank IS NOT NULL
                  AND step > (SELECT max(step) FROM step_summaries WHERE run = ${{run:sqlstring}} AND metric = ${{metric:sqlstring}}) - {RECENT}
                ORDER BY step, at DESC),
            total AS (SELECT count(*) AS steps FROM recent)
            SELECT recent.rank, a.mesh -> recent.rank::text ->> 'node' AS node, a.mesh -> recent.rank::text ->> 'gpu' AS gpu,
                   count(*)::float / total.steps AS share, avg({end}) AS value, avg(median) AS "median rank"
            FROM recent CROSS JOIN total LEFT JOIN attempts a ON a.run = ${{run:sqlstring}} AND a.attempt = recent.attempt
            GROUP BY recent.rank, 2, 3, total.steps ORDER BY count(*) DESC LIMIT 20
            """
        )

    return [
        column(table_panel("Most often highest, last 500 steps", query("max"), span=12, height=8), "share", unit="percentunit"),
        column(table_panel("Most often lowest, last 500 steps", query("min"), span=12, height=8), "share", unit="percentunit"),
    ]


def _own_work() -> list[dashboard.Panel]:
    return [
        trend_panel("Own work (what a straggler is judged by)", by_step("compute_seconds", SPREAD), unit="s"),
        trend_panel("Data wait", by_step("data_wait_seconds", SPREAD), unit="s"),
    ]


def _gpus() -> list[dashboard.Panel]:
    shown = (
        ("Temperature", "gpu_temperature_celsius", "celsius"),
        ("SM clock", "gpu_sm_clock_hertz", "hertz"),
        ("Power", "gpu_power_watts", "watt"),
        ("Utilisation", "gpu_utilization_ratio", "percentunit"),
        ("Memory used", "gpu_memory_used_bytes", "bytes"),
        ("Process memory", "process_memory_rss_bytes", "bytes"),
    )
    return [time_panel(title, by_time(metric, SPREAD), unit=unit, span=8) for title, metric, unit in shown]


def _placement() -> dashboard.Panel:
    return table_panel(
        "Newest attempt: rank, node, GPU, mesh",
        Sql(
            """
            SELECT m.key::int AS rank, m.value ->> 'node' AS node, m.value ->> 'gpu' AS gpu, m.value ->> 'dp' AS dp,
                   m.value ->> 'tp' AS tp, m.value ->> 'pp' AS pp, m.value ->> 'cp' AS cp, m.value ->> 'ep' AS ep
            FROM (SELECT mesh FROM attempts WHERE run = ${run:sqlstring} ORDER BY number DESC LIMIT 1) a, json_each(a.mesh) m
            ORDER BY 1 LIMIT 20000
            """
        ),
        span=12,
    )


def _agents() -> dashboard.Panel:
    panel = table_panel(
        "Node agents",
        Sql(
            """
            SELECT node, attempt, to_timestamp(first_seen_at) AS "first seen", extract(epoch FROM now()) - last_seen_at AS "quiet for",
                   last_seq AS frames, skew_seconds AS "clock skew", dropped::text AS dropped
            FROM agents WHERE run = ${run:sqlstring} ORDER BY last_seen_at DESC LIMIT 5000
            """
        ),
        span=12,
    )
    return column(column(panel, "quiet for", unit="s", decimals=0), "clock skew", unit="s", decimals=3)
