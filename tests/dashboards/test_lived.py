"""The dashboards over what a collector itself wrote into PostgreSQL, read as Grafana's own user."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from collector import collector
from dashboards.test_grafana import SHAPES, VARIABLES, sql_queries
from ui import replay

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.postgres
EMPTY = {
    "Learning rate", "Silences in force or to come", "Node agents, quietest first", "Node agents", "Steps from onset to detection",
    "Newest attempt: rank, node, GPU, mesh", "Power", "SM clock", "Utilisation", "Memory used", "Process memory", "Notices that wait or died",
}  # fmt: skip
"""Panels that may be empty here: the replayed run has no agent, no silence, no such metric, and its notices arrive."""


@pytest.fixture(scope="module")
def lived(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A database as docker compose makes it: our init script first, then the collector's own schema and a replayed run."""
    admin = sa.make_url(postgres_url)
    with sa.create_engine(admin, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE lived")
    folder = tmp_path_factory.mktemp("lived")
    (folder / "password").write_text("se'cret")
    init(admin, folder / "password")
    url = admin.set(database="lived")
    with collector(folder / "data", "--db", url.render_as_string(hide_password=False)) as running:
        run = replay.throughput(running)
        running.until(lambda: running.get("incidents", run=run)["items"], 60)
        running.until(lambda: running.get(f"runs/{run}/curves", metrics="loss")["to_step"] == 700, 60)
        running.until(lambda: running.get("goodput")["items"], 60)
        running.until(lambda: re.search(r'holter_deliveries_total{outcome="sent".*} [1-9]', running.http.get("/metrics").text), 60)
        yield {"reader": url.set(username="grafana_reader"), "run": run}


def init(admin: sa.URL, password: Path) -> None:
    psql = shutil.which("psql")
    if psql is None:
        pytest.skip("psql is not installed: the init script was not run")
    environment = {
        "PGHOST": str(admin.query["host"]),
        "POSTGRES_USER": "holter",
        "POSTGRES_DB": "lived",
        "GRAFANA_READER_PASSWORD_FILE": str(password),
    }
    subprocess.run(
        [ROOT / "deploy/postgres/10-grafana-reader.sh"], env={**os.environ, **environment}, check=True, capture_output=True, timeout=60
    )


def expand(sql: str, run: str) -> str:
    values = {**VARIABLES, "project": ["smollm3"], "run": [run]}
    for name, chosen in values.items():
        sql = sql.replace("${" + name + ":sqlstring}", ",".join(f"'{value}'" for value in chosen))
    for macro, text in (
        (r"\$__unixEpochFilter\(([\w.]+)\)", r"(\1 BETWEEN 0 AND 4e9)"),
        (r"\$__unixEpoch(From|To)\(\)", "4000000000"),
        (r"\$__interval_ms", "60000"),
    ):
        sql = re.sub(macro, text, sql)
    return sql


def test_every_query_answers_grafana_s_user(lived: dict[str, Any]) -> None:
    engine, empty = sa.create_engine(lived["reader"]), []
    with engine.connect() as connection:
        for uid, title, kind, sql in sql_queries():
            answer = connection.execute(sa.text(expand(sql, lived["run"]).replace(":", r"\:")))
            names, rows = list(answer.keys()), answer.fetchall()
            if rows and kind in ("trend", "timeseries", "table"):
                SHAPES[kind](names, rows)
            elif not rows:
                empty.append(f"{uid} / {title}")
    assert [name for name in empty if name.split(" / ")[1] not in EMPTY] == []


@pytest.mark.parametrize("sql", ["SELECT * FROM tokens", "SELECT * FROM audit", "DELETE FROM runs", "CREATE TABLE mine (x int)"])
def test_grafana_s_user_neither_writes_nor_sees_tokens(lived: dict[str, Any], sql: str) -> None:
    with sa.create_engine(lived["reader"]).connect() as connection:
        connection.exec_driver_sql("SET default_transaction_read_only = off")
        connection.rollback()
        with pytest.raises(sa.exc.DBAPIError, match=r"permission denied|read-only"):
            connection.exec_driver_sql(sql)


def test_the_trend_of_a_real_trace_shows_its_stalls(lived: dict[str, Any]) -> None:
    sql = next(sql for uid, title, kind, sql in sql_queries() if (uid, title, kind) == ("holter-run", "Step time", "trend"))
    with sa.create_engine(lived["reader"]).connect() as connection:
        rows = connection.execute(sa.text(expand(sql, lived["run"]).replace(":", r"\:"))).fetchall()
    stalled = [row[0] for row in rows if row[0] > 20 and row[3] > 3 * 1.18]
    assert stalled[0] == 291 and len(rows) == 700
