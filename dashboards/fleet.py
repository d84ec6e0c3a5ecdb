"""Fleet: which runs live, which are sick, what it costs."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from panels import HOLTER, SEVERITIES, STATES, Sql, bar_panel, column, new, project_variable, stat_panel, table_panel

CHOSEN = "project IN (${project:sqlstring})"


def _count(sql: str) -> Sql:
    return Sql(f"SELECT {sql}")


def build() -> dashboard.Dashboard:
    board = new("Holter / Fleet", "holter-fleet", "Every run, its health and what its troubles cost.").with_variable(project_variable())
    for panel in (*_numbers(), *_goodput(), _runs(), _open_incidents(), *_history(), _agents()):
        board = board.with_panel(panel)
    return board


def _numbers() -> list[dashboard.Panel]:
    live = "state IN ('open', 'acknowledged') AND parent IS NULL"
    return [
        stat_panel("Runs training", _count(f"count(*) FROM runs WHERE state = 'running' AND {CHOSEN}")),
        stat_panel("Ranks watched", _count(f"coalesce(sum(world_size), 0) FROM runs WHERE state = 'running' AND {CHOSEN}")),
        stat_panel("Runs gone silent", _count(f"count(*) FROM runs WHERE state = 'silent' AND {CHOSEN}"), bad_from=1),
        stat_panel(
            "Critical, not resolved",
            _count(f"count(*) FROM incidents WHERE severity = 'critical' AND {live} AND {CHOSEN}"),
            bad_from=1,
        ),
        stat_panel("Warnings, not resolved", _count(f"count(*) FROM incidents WHERE severity = 'warning' AND {live} AND {CHOSEN}")),
        stat_panel(
            "Wall time lost to incidents in range",
            _count(f"coalesce(sum(cost_seconds), 0) FROM incidents WHERE parent IS NULL AND $__unixEpochFilter(created_at) AND {CHOSEN}"),
            unit="s",
        ),
    ]


def _goodput() -> list[dashboard.Panel]:
    hours = f"goodput_hours g JOIN runs r ON r.id = g.run WHERE $__unixEpochFilter(g.hour_at) AND r.{CHOSEN}"
    failures = f"breaks b JOIN runs r ON r.id = b.run WHERE $__unixEpochFilter(b.at) AND r.{CHOSEN}"
    lost = f"""
        SELECT to_timestamp(g.hour_at) AS "time", g.cause AS metric, sum(g.rank_seconds) / 3600 AS value
        FROM {hours} AND g.cause <> 'productive' GROUP BY 1, 2 ORDER BY 1
    """
    by_cause = f"""
        SELECT g.cause, sum(g.rank_seconds) / 3600 AS "GPU-hours", sum(g.rank_seconds) / nullif(sum(sum(g.rank_seconds)) OVER (), 0) AS share
        FROM {hours} GROUP BY g.cause ORDER BY 2 DESC
    """
    productive = f"sum(g.rank_seconds) FILTER (WHERE g.cause = 'productive') / nullif(sum(g.rank_seconds), 0) FROM {hours}"
    return [
        stat_panel("Goodput in range", _count(productive), unit="percentunit"),
        stat_panel("Failures in range", _count(f"count(*) FROM {failures}"), bad_from=1),
        stat_panel(
            "Mean time between failures",
            _count(f"sum(g.seconds) FILTER (WHERE g.cause <> 'down') / nullif((SELECT count(*) FROM {failures}), 0) FROM {hours}"),
            unit="s",
        ),
        stat_panel("Mean time to recover", _count(f"avg(b.down_seconds + b.startup_seconds) FROM {failures}"), unit="s"),
        stat_panel("GPU-hours in range", _count(f"coalesce(sum(g.rank_seconds), 0) / 3600 FROM {hours}"), span=8),
        bar_panel("GPU-hours lost, by cause", Sql(lost, format="time_series"), unit="h"),
        column(table_panel("Where the GPU time went", Sql(by_cause), span=12, height=8), "share", unit="percentunit", decimals=1),
    ]


def _runs() -> dashboard.Panel:
    panel = table_panel(
        "Runs",
        Sql(
            f"""
            SELECT r.id, r.project, r.name, r.state, r.world_size AS ranks, r.last_step AS step,
                   extract(epoch FROM now()) - r.updated_at AS "last word",
                   (SELECT count(*) FROM attempts a WHERE a.run = r.id) AS attempts,
                   count(i.id) FILTER (WHERE i.severity = 'critical') AS critical,
                   count(i.id) FILTER (WHERE i.severity = 'warning') AS warning,
                   (SELECT coalesce(sum(cost_seconds), 0) FROM incidents c WHERE c.run = r.id AND c.parent IS NULL) AS "time lost"
            FROM runs r LEFT JOIN incidents i ON i.run = r.id AND i.state <> 'resolved' AND i.parent IS NULL
            WHERE r.{CHOSEN} GROUP BY r.id ORDER BY r.updated_at DESC LIMIT 500
            """
        ),
        height=10,
    )
    panel = column(panel, "id", hidden=True)
    panel = column(panel, "name", link="/d/holter-run?var-run=${__data.fields.id}&var-project=${__data.fields.project}")
    panel = column(column(panel, "last word", unit="s", decimals=0), "time lost", unit="s", decimals=0)
    return column(panel, "state", colors=STATES, link=HOLTER + "/runs/${__data.fields.id}")


def _open_incidents() -> dashboard.Panel:
    panel = table_panel(
        "Incidents that are not resolved",
        Sql(
            f"""
            SELECT to_timestamp(i.created_at) AS since, i.run, i.project, r.name, i.severity, i.state, i.kind, i.scope, i.onset_step AS "from step",
                   i.summary, i.causes -> 0 ->> 'sentence' AS "likely cause", i.cost_seconds AS "time lost", i.id
            FROM incidents i JOIN runs r ON r.id = i.run
            WHERE i.state <> 'resolved' AND i.parent IS NULL AND i.{CHOSEN}
            ORDER BY array_position(ARRAY['critical', 'warning', 'info'], i.severity::text), i.created_at DESC LIMIT 500
            """
        ),
    )
    panel = column(column(panel, "run", hidden=True), "severity", colors=SEVERITIES)
    panel = column(column(panel, "id", hidden=True), "summary", link=HOLTER + "/incidents/${__data.fields.id}")
    panel = column(panel, "name", link="/d/holter-run?var-run=${__data.fields.run}&var-project=${__data.fields.project}")
    return column(column(panel, "state", colors=STATES), "time lost", unit="s", decimals=0)


def _history() -> list[dashboard.Panel]:
    opened = f"""
        SELECT to_timestamp(floor(created_at / 3600) * 3600) AS "time",
               count(*) FILTER (WHERE severity = 'critical') AS critical,
               count(*) FILTER (WHERE severity = 'warning') AS warning,
               count(*) FILTER (WHERE severity = 'info') AS info
        FROM incidents WHERE $__unixEpochFilter(created_at) AND parent IS NULL AND {CHOSEN} GROUP BY 1 ORDER BY 1
    """
    lost = f"""
        SELECT to_timestamp(floor(created_at / 3600) * 3600) AS "time", kind AS metric, sum(cost_seconds) AS value
        FROM incidents WHERE $__unixEpochFilter(created_at) AND parent IS NULL AND cost_seconds > 0 AND {CHOSEN}
        GROUP BY 1, kind ORDER BY 1
    """
    return [
        bar_panel("Incidents opened, an hour", Sql(opened, format="time_series")),
        bar_panel("Wall time lost, an hour, by kind", Sql(lost, format="time_series"), unit="s"),
    ]


def _agents() -> dashboard.Panel:
    panel = table_panel(
        "Node agents, quietest first",
        Sql(
            f"""
            SELECT r.project, r.name, a.node, extract(epoch FROM now()) - max(a.last_seen_at) AS "quiet for",
                   count(*) AS lives, max(abs(a.skew_seconds)) AS "clock skew",
                   (SELECT coalesce(sum(d.value::bigint), 0) FROM agents x, json_each_text(x.dropped) d
                     WHERE x.run = r.id AND x.node = a.node) AS "points dropped"
            FROM agents a JOIN runs r ON r.id = a.run
            WHERE r.state IN ('running', 'silent') AND r.{CHOSEN}
            GROUP BY r.id, a.node ORDER BY 4 DESC LIMIT 500
            """
        ),
    )
    return column(column(panel, "quiet for", unit="s", decimals=0), "clock skew", unit="s", decimals=3)
