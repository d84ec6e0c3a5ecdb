"""Run: one run by step and by time, with its attempts, events and incidents."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from panels import (
    HOLTER,
    SEVERITIES,
    STATES,
    Sql,
    SqlAnnotation,
    column,
    new,
    project_variable,
    run_variable,
    stat_panel,
    table_panel,
    time_panel,
    trend_panel,
)
from queries import EVENT_MARKS, INCIDENT_MARKS, SPREAD, by_step, by_time, newest

TOKENS_RATE = 'sum(mean * count) / sum(count) AS "per rank", sum(mean * count) / count(DISTINCT step) AS "all ranks"'


def build() -> dashboard.Dashboard:
    board = new(
        "Holter / Run", "holter-run", "One run: loss, gradient norm, throughput and waiting, by step and by time.", place="/runs/${run}"
    )
    board = board.with_variable(project_variable()).with_variable(run_variable())
    board = board.annotation(SqlAnnotation("Incidents", INCIDENT_MARKS, "red")).annotation(SqlAnnotation("Events", EVENT_MARKS, "blue"))
    for panel in _numbers():
        board = board.with_panel(panel)
    board = board.with_row(dashboard.Row("By step"))
    for panel in _by_step():
        board = board.with_panel(panel)
    board = board.with_row(dashboard.Row("By time"))
    for panel in _by_time():
        board = board.with_panel(panel)
    board = board.with_row(dashboard.Row("What happened"))
    for panel in (_incidents(), _attempts(), _events()):
        board = board.with_panel(panel)
    return board


def _numbers() -> list[dashboard.Panel]:
    run = "${run:sqlstring}"
    productive = f"""
        SELECT sum(rank_seconds) FILTER (WHERE cause = 'productive') / nullif(sum(rank_seconds), 0) AS goodput
        FROM goodput_hours WHERE run = {run}
    """
    lost = f"""
        WITH newest AS ({newest("step_time_seconds")}),
        base AS (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY max) AS seconds FROM newest)
        SELECT sum(greatest(0, newest.max - base.seconds)) AS lost FROM newest, base
    """
    return [
        stat_panel("Step", Sql(f"SELECT last_step FROM runs WHERE id = {run}"), unit="none"),
        stat_panel("Ranks", Sql(f"SELECT world_size FROM runs WHERE id = {run}")),
        stat_panel(
            "Loss now",
            Sql(f"SELECT mean FROM step_summaries WHERE run = {run} AND metric = 'loss' ORDER BY at DESC, step DESC LIMIT 1"),
        ),
        stat_panel(
            "Incidents not resolved",
            Sql(f"SELECT count(*) FROM incidents WHERE run = {run} AND state <> 'resolved' AND parent IS NULL"),
            bad_from=1,
        ),
        stat_panel("Time lost to slow steps", Sql(lost), unit="s").description(
            "Sum over all steps of what each took beyond the run's median step. A median panel cannot show this."
        ),
        stat_panel("Goodput", Sql(productive), unit="percentunit").description(
            "Effective training time over wall time, as GET /runs/{id}/goodput says it."
        ),
    ]


def _by_step() -> list[dashboard.Panel]:
    lost = Sql(
        f"""
        WITH newest AS ({newest("step_time_seconds")}),
        base AS (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY max) AS seconds FROM newest),
        running AS (SELECT step, sum(greatest(0, newest.max - base.seconds)) OVER (ORDER BY step) AS lost FROM newest, base),
        span AS (SELECT greatest(1, ceil((max(step) - min(step) + 1) / 1500.0)::bigint) AS width FROM newest)
        SELECT min(step) AS step, max(lost) AS "time lost so far" FROM running, span GROUP BY step / width ORDER BY step
        """
    )
    return [
        trend_panel("Loss", by_step("loss", SPREAD)),
        trend_panel("Gradient norm", by_step("grad_norm", SPREAD), log=True),
        trend_panel("Throughput", by_step("tokens_per_second", TOKENS_RATE), unit="cps").description("Tokens a second."),
        trend_panel("Step time", by_step("step_time_seconds", SPREAD), unit="s", log=True),
        trend_panel("Time lost to slow steps", lost, unit="s"),
        trend_panel("Data wait", by_step("data_wait_seconds", "avg(mean) AS mean, max(max) AS worst"), unit="s"),
        trend_panel("Learning rate", by_step("lr", "avg(mean) AS lr")),
        trend_panel("Ranks that logged the loss", by_step("loss", 'min(count) AS ranks, max(non_finite) AS "with NaN or Inf"')),
    ]


def _by_time() -> list[dashboard.Panel]:
    return [
        time_panel("Loss", by_time("loss", SPREAD)),
        time_panel("Gradient norm", by_time("grad_norm", SPREAD), log=True),
        time_panel("Throughput", by_time("tokens_per_second", TOKENS_RATE), unit="cps"),
        time_panel("Step time", by_time("step_time_seconds", SPREAD), unit="s", log=True),
    ]


def _incidents() -> dashboard.Panel:
    panel = table_panel(
        "Incidents",
        Sql(
            """
            SELECT to_timestamp(created_at) AS opened, severity, state, kind, scope, onset_step AS "from step", end_step AS "to step",
                   summary, causes -> 0 ->> 'sentence' AS "likely cause", causes -> 0 ->> 'action' AS "what to do",
                   cost_seconds AS "time lost", acknowledged_by AS "acknowledged by", id
            FROM incidents WHERE run = ${run:sqlstring} AND parent IS NULL ORDER BY created_at DESC LIMIT 500
            """
        ),
    )
    panel = column(column(panel, "id", hidden=True), "summary", link=HOLTER + "/incidents/${__data.fields.id}")
    return column(column(column(panel, "severity", colors=SEVERITIES), "state", colors=STATES), "time lost", unit="s", decimals=0)


def _attempts() -> dashboard.Panel:
    panel = table_panel(
        "Attempts",
        Sql(
            """
            SELECT number, attempt, state, to_timestamp(started_at) AS started, to_timestamp(ended_at) AS ended, world_size AS ranks,
                   first_step AS "first step", last_step AS "last step",
                   coalesce(ended_at, extract(epoch FROM now())) - started_at AS lasted
            FROM attempts WHERE run = ${run:sqlstring} ORDER BY number DESC LIMIT 500
            """
        ),
        span=12,
    )
    return column(column(panel, "state", colors=STATES), "lasted", unit="s")


def _events() -> dashboard.Panel:
    return table_panel(
        "Declared and lifecycle events",
        Sql(
            """
            SELECT to_timestamp(at) AS "time", step, event, rank, node, attempt, attrs::text AS said
            FROM run_events WHERE run = ${run:sqlstring} AND event NOT IN ('fingerprint', 'watch') ORDER BY at DESC LIMIT 500
            """
        ),
        span=12,
    )
