"""Incidents and alerting: what was found, how fast people answered, whether the notices arrived."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from panels import HOLTER, SEVERITIES, STATES, Sql, bar_panel, column, new, project_variable, stat_panel, table_panel, time_panel, variable

CHOSEN = "i.project IN (${project:sqlstring}) AND i.severity IN (${severity:sqlstring}) AND i.kind IN (${kind:sqlstring})"


def build() -> dashboard.Dashboard:
    board = new(
        "Holter / Incidents and alerting",
        "holter-incidents",
        "Incidents, how they were answered, and the notices' delivery.",
        place="/incidents",
    )
    board = board.with_variable(project_variable()).with_variable(_severity()).with_variable(_kind())
    for panel in (*_numbers(), _incidents(), *_over_time(), _kinds(), _changes()):
        board = board.with_panel(panel)
    board = board.with_row(dashboard.Row("Delivery"))
    for panel in (_receivers(), _undelivered(), _waits(), _silences()):
        board = board.with_panel(panel)
    return board


def _severity() -> dashboard.QueryVariable:
    return variable("severity", "Severity", "SELECT unnest(ARRAY['critical', 'warning', 'info'])", many=True)


def _kind() -> dashboard.QueryVariable:
    return variable("kind", "Kind", "SELECT DISTINCT kind FROM incidents ORDER BY kind", many=True)


def _numbers() -> list[dashboard.Panel]:
    def number(columns: str, where: str = "true") -> Sql:
        return Sql(f"SELECT {columns} FROM incidents i WHERE {CHOSEN} AND i.parent IS NULL AND {where}")

    opened = "$__unixEpochFilter(i.created_at)"
    return [
        stat_panel("Open", number("count(*)", "i.state = 'open'"), bad_from=1),
        stat_panel("Acknowledged", number("count(*)", "i.state = 'acknowledged'")),
        stat_panel("Opened in range", number("count(*)", opened)),
        stat_panel(
            "Median time to acknowledge",
            number("percentile_cont(0.5) WITHIN GROUP (ORDER BY i.acknowledged_at - i.created_at)", opened),
            unit="s",
        ),
        stat_panel(
            "Median time to resolve",
            number("percentile_cont(0.5) WITHIN GROUP (ORDER BY i.resolved_at - i.created_at)", opened),
            unit="s",
        ),
        stat_panel("Notices that never arrived", Sql("SELECT count(*) FROM outbox WHERE status = 'dead'"), bad_from=1),
    ]


def _incidents() -> dashboard.Panel:
    panel = table_panel(
        "Incidents",
        Sql(
            f"""
            SELECT to_timestamp(i.created_at) AS opened, i.run, i.project, r.name, i.severity, i.state, i.kind, i.scope,
                   i.onset_step AS "from step", i.detected_step AS "seen at step", i.end_step AS "to step", i.summary,
                   i.causes -> 0 ->> 'sentence' AS "likely cause", i.cost_seconds AS "time lost", i.acknowledged_by AS "acknowledged by", i.id
            FROM incidents i JOIN runs r ON r.id = i.run
            WHERE {CHOSEN} AND i.parent IS NULL AND $__unixEpochFilter(i.updated_at) ORDER BY i.created_at DESC LIMIT 1000
            """
        ),
        height=11,
    )
    panel = column(column(panel, "run", hidden=True), "severity", colors=SEVERITIES)
    panel = column(column(panel, "id", hidden=True), "summary", link=HOLTER + "/incidents/${__data.fields.id}")
    panel = column(panel, "name", link="/d/holter-run?var-run=${__data.fields.run}&var-project=${__data.fields.project}")
    return column(column(panel, "state", colors=STATES), "time lost", unit="s", decimals=0)


def _over_time() -> list[dashboard.Panel]:
    opened = f"""
        SELECT to_timestamp(floor(i.created_at / 86400) * 86400) AS "time", i.kind AS metric, count(*) AS value
        FROM incidents i WHERE {CHOSEN} AND i.parent IS NULL AND $__unixEpochFilter(i.created_at) GROUP BY 1, i.kind ORDER BY 1
    """
    delay = f"""
        SELECT to_timestamp(i.created_at) AS "time", i.detected_step - i.onset_step AS "steps from onset to detection"
        FROM incidents i WHERE {CHOSEN} AND i.parent IS NULL AND $__unixEpochFilter(i.created_at) ORDER BY 1
    """
    return [
        bar_panel("Opened a day, by kind", Sql(opened, format="time_series")),
        time_panel("Steps from onset to detection", Sql(delay, format="time_series")).show_points("always"),
    ]


def _kinds() -> dashboard.Panel:
    panel = table_panel(
        "By kind",
        Sql(
            f"""
            SELECT i.kind, count(*) AS incidents, count(*) FILTER (WHERE i.severity = 'critical') AS critical,
                   count(DISTINCT i.run) AS runs, sum(i.cost_seconds) AS "time lost",
                   percentile_cont(0.5) WITHIN GROUP (ORDER BY i.resolved_at - i.created_at) AS "median duration"
            FROM incidents i WHERE {CHOSEN} AND i.parent IS NULL AND $__unixEpochFilter(i.created_at) GROUP BY i.kind ORDER BY 2 DESC
            """
        ),
        span=12,
    )
    return column(column(panel, "time lost", unit="s", decimals=0), "median duration", unit="s", decimals=0)


def _changes() -> dashboard.Panel:
    return table_panel(
        "Changes, newest first",
        Sql(
            f"""
            SELECT to_timestamp(h.at) AS "time", h.change, i.kind, i.scope, h.actor, h.note
            FROM incident_history h JOIN incidents i ON i.id = h.incident
            WHERE {CHOSEN} AND $__unixEpochFilter(h.at) ORDER BY h.at DESC LIMIT 500
            """
        ),
        span=12,
    )


def _receivers() -> dashboard.Panel:
    panel = table_panel(
        "Receivers",
        Sql(
            """
            SELECT receiver, count(*) FILTER (WHERE status = 'sent') AS sent, count(*) FILTER (WHERE status IN ('ready', 'leased')) AS waiting,
                   count(*) FILTER (WHERE status = 'dead') AS dead, count(*) FILTER (WHERE status = 'superseded') AS superseded,
                   sum(greatest(0, attempts - 1)) AS retries,
                   percentile_cont(0.5) WITHIN GROUP (ORDER BY sent_at - created_at) AS "median delay", max(sent_at - created_at) AS "worst delay"
            FROM outbox WHERE $__unixEpochFilter(created_at) GROUP BY receiver ORDER BY receiver
            """
        ),
        span=12,
    )
    return column(column(panel, "median delay", unit="s"), "worst delay", unit="s")


def _undelivered() -> dashboard.Panel:
    panel = table_panel(
        "Notices that wait or died",
        Sql(
            """
            SELECT to_timestamp(o.created_at) AS written, o.receiver, o.transition, i.kind, o.status, o.attempts AS tries,
                   to_timestamp(o.next_at) AS "next try", o.last_error AS "last error"
            FROM outbox o LEFT JOIN incidents i ON i.id = o.incident
            WHERE o.status IN ('ready', 'leased', 'dead') ORDER BY o.created_at DESC LIMIT 500
            """
        ),
        span=12,
    )
    return column(panel, "status", colors=STATES)


def _waits() -> dashboard.Panel:
    delay = """
        SELECT to_timestamp(created_at) AS "time", receiver AS metric, sent_at - created_at AS value
        FROM outbox WHERE sent_at IS NOT NULL AND $__unixEpochFilter(created_at) ORDER BY 1
    """
    return time_panel("From incident to delivered notice", Sql(delay, format="time_series"), unit="s").show_points("always")


def _silences() -> dashboard.Panel:
    return table_panel(
        "Silences in force or to come",
        Sql(
            """
            SELECT to_timestamp(starts_at) AS "from", to_timestamp(ends_at) AS "to", author, reason, matchers::text AS matchers
            FROM silences WHERE ends_at > extract(epoch FROM now()) ORDER BY ends_at LIMIT 500
            """
        ),
        span=12,
        height=8,
    )
