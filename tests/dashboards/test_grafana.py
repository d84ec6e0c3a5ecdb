"""The committed dashboards: what the code says, and every query of every panel answered by a real PostgreSQL in the shape that the panel needs."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dashboards.conftest import START

ROOT = Path(__file__).parents[2]
BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "dashboards" / "grafana").glob("*.json"))}
VARIABLES = {
    "project": ["smol"],
    "run": ["r1"],
    "severity": ["critical", "warning", "info"],
    "kind": ["throughput_drop", "loss_spike", "straggler"],
    "metric": ["compute_seconds"],
}
MACROS = {
    r"\$__unixEpochFilter\(([\w.]+)\)": rf"(\1 >= {START - 60:.0f} AND \1 <= {START + 100_000:.0f})",
    r"\$__unixEpochFrom\(\)": f"{START - 60:.0f}",
    r"\$__unixEpochTo\(\)": f"{START + 100_000:.0f}",
    r"\$__interval_ms": "60000",
}
"""What Grafana's backend makes of these words (PostgreSQL data source, macros)."""


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [inner for panel in board["panels"] for inner in [panel, *panel.get("panels", [])]]


def sql_queries() -> list[tuple[str, str, str, str]]:
    """(dashboard, panel, panel's type, SQL) of every target, annotation and variable."""
    found = []
    for uid, board in BOARDS.items():
        for panel in panels(board):
            found += [(uid, panel["title"], panel["type"], t["rawSql"]) for t in panel.get("targets", []) if "rawSql" in t]
        for annotation in board.get("annotations", {}).get("list", []):
            found.append((uid, annotation["name"], "annotation", annotation["target"]["rawSql"]))
        for variable in board.get("templating", {}).get("list", []):
            if variable["type"] != "query":
                continue
            found.append((uid, variable["name"], "variable", variable["query"]))
    return found


def expand(sql: str) -> str:
    """The query as Grafana would send it."""
    for name, values in VARIABLES.items():
        quoted = ",".join("'" + value.replace("'", "''") + "'" for value in values)
        sql = sql.replace("${" + name + ":sqlstring}", quoted)
    for pattern, replacement in MACROS.items():
        sql = re.sub(pattern, replacement, sql)
    assert "$" not in sql, f"a variable or macro is left: {sql}"
    return sql


def test_the_committed_json_is_what_the_code_says() -> None:
    pytest.importorskip("grafana_foundation_sdk", reason="needs Python 3.11; the committed dashboards were not compared")
    answer = subprocess.run(
        [sys.executable, ROOT / "dashboards/generate.py", "--check"], capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 0, answer.stderr


def test_every_panel_says_what_it_shows_and_in_which_unit() -> None:
    for uid, board in BOARDS.items():
        for panel in panels(board):
            if panel["type"] == "row":
                continue
            assert len(panel.get("description", "")) > 10, f"{uid}: {panel['title']} has no description"
            dressed = panel["fieldConfig"]["defaults"].get("unit") or panel["type"] == "table"
            assert dressed, f"{uid}: {panel['title']} has no unit"


@pytest.mark.parametrize(
    ("uid", "place"),
    [("holter-fleet", "/"), ("holter-run", "/runs/${run}"), ("holter-ranks", "/runs/${run}/ranks"), ("holter-incidents", "/incidents")],
)
def test_a_dashboard_opens_its_place_on_holters_page(uid: str, place: str) -> None:
    assert f"${{holter}}/#{place}" in [link.get("url") for link in BOARDS[uid]["links"]]
    (address,) = [variable for variable in BOARDS[uid]["templating"]["list"] if variable["name"] == "holter"]
    assert address["type"] == "textbox" and address["query"] == "http://127.0.0.1:8787"


@pytest.mark.parametrize("uid", ["holter-fleet", "holter-run", "holter-incidents"])
def test_an_incident_in_a_table_opens_at_holter(uid: str) -> None:
    """The link needs the id in the same row."""
    tables = [panel for panel in panels(BOARDS[uid]) if panel["type"] == "table" and "/#/incidents/${__data.fields.id}" in str(panel)]
    assert len(tables) == 1
    assert re.search(r"\b(i\.)?id\s+FROM incidents", tables[0]["targets"][0]["rawSql"])


def test_there_are_five_dashboards_with_uids_of_their_own() -> None:
    assert sorted(BOARDS) == ["holter-fleet", "holter-incidents", "holter-itself", "holter-ranks", "holter-run"]
    assert all(board["uid"] == name for name, board in BOARDS.items())


def test_panels_do_not_overlap() -> None:
    for uid, board in BOARDS.items():
        cells: set[tuple[int, int]] = set()
        for panel in panels(board):
            place = panel["gridPos"]
            own = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
            assert not own & cells, f"{uid}: {panel['title']} lies over another panel"
            assert place["x"] + place["w"] <= 24
            cells |= own


@pytest.mark.postgres
@pytest.mark.parametrize(("uid", "title", "kind", "sql"), sql_queries(), ids=lambda value: str(value)[:40].replace("\n", " "))
def test_query_answers_in_the_shape_of_its_panel(database: sa.Engine, uid: str, title: str, kind: str, sql: str) -> None:
    with database.connect() as connection:
        connection.exec_driver_sql("SET default_transaction_read_only = on")
        answer = connection.execute(sa.text(expand(sql).replace(":", r"\:")))
        names, rows = list(answer.keys()), answer.fetchall()
    assert rows, f"{uid} / {title} answers nothing"
    assert len(set(names)) == len(names), f"{names} names a column twice"
    SHAPES[kind](names, rows)


def _is_trend(names: list[str], rows: Any) -> None:
    steps = [row[0] for row in rows]
    assert names[0] == "step" and all(isinstance(step, int) for step in steps)
    assert steps == sorted(set(steps)), "a Trend panel needs an ascending x"
    assert len(rows) <= 1500
    assert any(value is not None for value in rows[-1][1:])


def _is_time_series(names: list[str], rows: Any) -> None:
    times = [row[0] for row in rows]
    assert names[0] == "time" and all(isinstance(time, datetime.datetime) for time in times)
    assert times == sorted(times)
    if names[1:] != ["metric", "value"]:
        assert not any(isinstance(value, str) for row in rows for value in row[1:])


def _is_number(names: list[str], rows: Any) -> None:
    assert len(names) == len(rows) == 1 and rows[0][0] is not None


def _is_table(names: list[str], rows: Any) -> None:
    assert len(names) > 2


def _is_annotation(names: list[str], rows: Any) -> None:
    assert names[0] == "time" and {"text", "tags"} <= set(names) <= {"time", "timeend", "text", "tags"}
    assert all(1.7e12 < float(row[0]) < 2e12 for row in rows), "annotations count in milliseconds"


def _is_variable(names: list[str], rows: Any) -> None:
    assert names == ["__text", "__value"] or len(names) == 1


SHAPES = {
    "trend": _is_trend,
    "timeseries": _is_time_series,
    "stat": _is_number,
    "table": _is_table,
    "annotation": _is_annotation,
    "variable": _is_variable,
}


@pytest.mark.postgres
def test_a_repeated_step_counts_once_with_its_newest_attempt(database: sa.Engine) -> None:
    """Attempt 2 rewinds to step 201: the throughput panel shows 700 steps, not 800."""
    sql = next(
        sql for uid, title, kind, sql in sql_queries() if (uid, title, kind) == ("holter-run", "Ranks that logged the loss", "trend")
    )
    with database.connect() as connection:
        steps = [row[0] for row in connection.execute(sa.text(expand(sql).replace(":", r"\:")))]
    assert steps == list(range(1, 701))


@pytest.mark.postgres
def test_time_lost_is_what_the_trace_lost(database: sa.Engine) -> None:
    """The stalls of the first 700 steps, computed here from the trace itself."""
    sql = next(sql for uid, title, kind, sql in sql_queries() if (uid, title, kind) == ("holter-run", "Time lost to slow steps", "stat"))
    rows = (ROOT / "tests/data/playbook/throughput_weka_first_700.csv").read_text().split()[1:]
    seconds = sorted(30_000 / float(row.split(",")[1]) * 1.01 for row in rows)
    median = (seconds[349] + seconds[350]) / 2
    with database.connect() as connection:
        lost = connection.execute(sa.text(expand(sql))).scalar_one()
    assert lost == pytest.approx(sum(max(0, s - median) for s in seconds), rel=1e-6)
