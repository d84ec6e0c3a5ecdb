"""The SQL that several panels share: a metric by step, thinned on the server, and the same by time.

A restart repeats steps, so a step's newest attempt counts. A million steps become at most `POINTS` buckets, each with its mean and its
extremes: a spike of one step stays visible.
"""

from __future__ import annotations

from panels import Sql

POINTS = 1500
"""Buckets of a panel: more than it has pixels."""


def newest(metric: str) -> str:
    """One row a step of `metric` for the chosen run: the newest attempt's."""
    return f"""
        SELECT DISTINCT ON (step) step, at, count, mean, median, min, max, min_rank, max_rank, non_finite
        FROM step_summaries WHERE run = ${{run:sqlstring}} AND metric = '{metric}' AND step >= 0
        ORDER BY step, at DESC"""


def by_step(metric: str, columns: str, ref_id: str = "A") -> Sql:
    """`columns` are aggregates over a bucket of steps, such as `avg(mean) AS mean`."""
    return Sql(
        f"""
        WITH newest AS ({newest(metric)}),
        span AS (SELECT greatest(1, ceil((max(step) - min(step) + 1) / {POINTS}.0)::bigint) AS width FROM newest)
        SELECT min(step) AS step, {columns}
        FROM newest, span GROUP BY step / width ORDER BY step
        """,
        ref_id=ref_id,
    )


def by_time(metric: str, columns: str, ref_id: str = "A") -> Sql:
    """The same over time, all attempts, one bucket an interval of the panel."""
    return Sql(
        f"""
        SELECT to_timestamp(floor(at / ($__interval_ms / 1000.0)) * ($__interval_ms / 1000.0)) AS "time", {columns}
        FROM step_summaries
        WHERE run = ${{run:sqlstring}} AND metric = '{metric}' AND $__unixEpochFilter(at)
        GROUP BY 1 ORDER BY 1
        """,
        ref_id=ref_id,
        format="time_series",
    )


SPREAD = "avg(mean) AS mean, min(min) AS lowest, max(max) AS highest"

INCIDENT_MARKS = """
    SELECT created_at * 1000 AS time, coalesce(resolved_at, $__unixEpochTo()) * 1000 AS timeend,
           kind || ' at step ' || onset_step || ': ' || summary AS text, severity || ',' || kind AS tags
    FROM incidents
    WHERE run = ${run:sqlstring} AND created_at <= $__unixEpochTo() AND coalesce(resolved_at, $__unixEpochTo()) >= $__unixEpochFrom()
    ORDER BY created_at DESC LIMIT 200
"""
EVENT_MARKS = """
    SELECT at * 1000 AS time, event || coalesce(' at step ' || step, '') AS text, event AS tags
    FROM run_events
    WHERE run = ${run:sqlstring} AND $__unixEpochFilter(at)
      AND event NOT IN ('rank_started', 'rank_finished', 'fingerprint', 'watch', 'agent_started', 'agent_stopped')
    ORDER BY at DESC LIMIT 200
"""
