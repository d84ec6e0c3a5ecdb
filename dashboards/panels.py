"""The look that all dashboards share: data sources, SQL queries, variables, and one function a kind of panel."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries, trend
from grafana_foundation_sdk.cog import builder as cogbuilder
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as shapes

POSTGRES = shapes.DataSourceRef(type_val="grafana-postgresql-datasource", uid="holter-postgres")
PROMETHEUS = shapes.DataSourceRef(type_val="prometheus", uid="holter-prometheus")
WIDTH = 24
"""Columns of Grafana's grid."""
Target = cogbuilder.Builder[variants.Dataquery]


@dataclass(frozen=True)
class Sql(cogbuilder.Builder[Any], variants.Dataquery):
    """A query of the PostgreSQL data source. The SDK has no model of it; these are the fields that Grafana 11 to 13 read."""

    sql: str
    ref_id: str = "A"
    format: str = "table"

    def build(self) -> Sql:
        return self

    def to_json(self) -> dict[str, Any]:
        return {
            "refId": self.ref_id,
            "datasource": POSTGRES,
            "editorMode": "code",
            "format": self.format,
            "rawQuery": True,
            "rawSql": textwrap.dedent(self.sql).strip(),
        }


@dataclass(frozen=True)
class SqlAnnotation(cogbuilder.Builder[Any]):
    """Marks on every panel with a time axis. The query gives `time`, `timeend`, `text`, `tags`."""

    name: str
    sql: str
    color: str
    annotated: dict[str, Any] = field(default_factory=dict)

    def build(self) -> SqlAnnotation:
        return self

    def to_json(self) -> dict[str, Any]:
        target = Sql(self.sql, ref_id="Anno").to_json()
        return {"name": self.name, "datasource": POSTGRES, "enable": True, "hide": False, "iconColor": self.color, "target": target}


def promql(expr: str, legend: str = "", ref_id: str = "A") -> prometheus.Dataquery:
    """A query over the panel's time range."""
    return prometheus.Dataquery().expr(expr).legend_format(legend or "__auto").range().ref_id(ref_id).datasource(PROMETHEUS)


HOLTER = "${holter}/#"
"""Holter's own page, before the `/` of a place on it."""


def new(title: str, uid: str, description: str, *, place: str = "/") -> dashboard.Dashboard:
    """An empty dashboard of the house: linked to the others and to its `place` on Holter's page, one crosshair for all panels."""
    holter = dashboard.TextBoxVariable("holter").label("Holter's page").default_value("http://127.0.0.1:8787")
    page = (
        dashboard.DashboardLink("Open in Holter")
        .type(shapes.DashboardLinkType.LINK)
        .url(HOLTER + place)
        .icon("external link")
        .target_blank(True)
    )
    others = dashboard.DashboardLink("Holter").type(shapes.DashboardLinkType.DASHBOARDS).tags(["holter"]).keep_time(True).include_vars(True)
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["holter"])
        .timezone("browser")
        .tooltip(shapes.DashboardCursorSync.CROSSHAIR)
        .time("now-24h", "now")
        .refresh("30s")
        .link(others)
        .link(page)
        .with_variable(holter)
    )


def variable(name: str, label: str, sql: str, *, many: bool = False) -> dashboard.QueryVariable:
    """A choice filled by SQL. With `many`, several or all can be chosen at once."""
    query = (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(POSTGRES)
        .query(textwrap.dedent(sql).strip())
        .refresh(shapes.VariableRefresh.ON_TIME_RANGE_CHANGED)
    )
    if many:
        return query.multi(True).include_all(True).current(shapes.VariableOption(text="All", value="$__all"))
    return query


def project_variable() -> dashboard.QueryVariable:
    return variable("project", "Project", "SELECT DISTINCT project FROM runs ORDER BY project", many=True)


def run_variable() -> dashboard.QueryVariable:
    return variable(
        "run",
        "Run",
        """
        SELECT project || ' / ' || name AS __text, id AS __value
        FROM runs WHERE project IN (${project:sqlstring}) ORDER BY updated_at DESC
        """,
    )


def trend_panel(title: str, *queries: Sql, unit: str = "short", log: bool = False, decimals: int | None = None) -> trend.Panel:
    """Lines over the step. The first column of each query is `step`, ascending."""
    panel = _lines(trend.Panel().x_field("step"), title, unit=unit, log=log).span(12).height(8).datasource(POSTGRES).targets(list(queries))
    return panel.decimals(decimals) if decimals is not None else panel


def time_panel(title: str, *queries: Target, unit: str = "short", log: bool = False, span: int = 12) -> timeseries.Panel:
    """Lines over time."""
    return _lines(timeseries.Panel(), title, unit=unit, log=log).span(span).height(8).targets(list(queries))


def bar_panel(title: str, *queries: Target, unit: str = "short", span: int = 12) -> timeseries.Panel:
    """Stacked bars over time, for things that are counted."""
    return (
        time_panel(title, *queries, unit=unit, span=span)
        .draw_style(looks.GraphDrawStyle.BARS)
        .fill_opacity(70)
        .stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL))
    )


def _lines(panel: Any, title: str, *, unit: str, log: bool) -> Any:
    scale = common.ScaleDistributionConfig().type(looks.ScaleDistribution.LOG if log else looks.ScaleDistribution.LINEAR)
    return (
        panel.title(title)
        .unit(unit)
        .line_width(1)
        .fill_opacity(0)
        .show_points(looks.VisibilityMode.NEVER)
        .scale_distribution(scale.log(10) if log else scale)
        .legend(
            common.VizLegendOptions().show_legend(True).display_mode(looks.LegendDisplayMode.LIST).placement(looks.LegendPlacement.BOTTOM)
        )
        .tooltip(common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING))
    )


def stat_panel(title: str, query: Target, *, unit: str = "short", bad_from: float | None = None, span: int = 4) -> stat.Panel:
    """One number; from `bad_from` on it is red."""
    steps = [shapes.Threshold(color="text")]
    if bad_from is not None:
        steps.append(shapes.Threshold(value=bad_from, color="red"))
    return (
        stat.Panel()
        .title(title)
        .unit(unit)
        .thresholds(dashboard.ThresholdsConfig().mode(shapes.ThresholdsMode.ABSOLUTE).steps(steps))
        .color_mode(looks.BigValueColorMode.VALUE)
        .graph_mode(looks.BigValueGraphMode.NONE)
        .no_value("–")
        .span(span)
        .height(4)
        .with_target(query)
    )


def table_panel(title: str, query: Target, *, span: int = WIDTH, height: int = 9) -> table.Panel:
    """Rows as the query orders them."""
    return (
        table.Panel()
        .title(title)
        .span(span)
        .height(height)
        .filterable(True)
        .cell_height(looks.TableCellHeight.SM)
        .no_value("–")
        .with_target(query)
    )


def column(panel: table.Panel, name: str, **settings: Any) -> table.Panel:
    """Dress one column: `unit="s"`, `decimals=1`, `link="/d/…"`, `hidden=True`, `colors={"critical": "red"}`, `width=120`."""
    ids = {"unit": "unit", "decimals": "decimals", "hidden": "custom.hidden", "width": "custom.width"}
    properties = [shapes.DynamicConfigValue(ids[key], value) for key, value in settings.items() if key in ids]
    if "link" in settings:
        properties.append(shapes.DynamicConfigValue("links", [{"title": "Open", "url": settings["link"]}]))
    if "colors" in settings:
        options = {word: {"color": color, "index": index} for index, (word, color) in enumerate(settings["colors"].items())}
        properties.append(shapes.DynamicConfigValue("mappings", [{"type": "value", "options": options}]))
        properties.append(shapes.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}))
    return panel.override_by_name(name, properties)


SEVERITIES = {"critical": "red", "warning": "orange", "info": "blue"}
STATES = {
    "running": "green", "finished": "blue", "waiting": "text", "failed": "red", "silent": "orange", "lost": "red", "preempted": "orange",
    "open": "red", "acknowledged": "orange", "resolved": "green",
    "sent": "green", "ready": "text", "leased": "blue", "dead": "red", "superseded": "text",
}  # fmt: skip
