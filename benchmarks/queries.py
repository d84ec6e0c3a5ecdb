"""How fast the collector answers at scale, over REST, from a store that was filled directly.

    python benchmarks/queries.py [--steps 1000] [--rounds 7]

Three runs: 16,384 ranks x `--steps` steps, 16 ranks x 100,000 steps, one rank x 1,000,000 steps; 4 metrics each (a column that is not asked for costs nothing).
A fourth, 16 ranks x 1,000,000 steps, has summaries alone, as a run whose points were forgotten.
Each question is asked of a collector that has just started (the first answer), then `--rounds` times; the table shows the first, the median and the
worst, with the issue's aim.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import sqlalchemy as sa
from holter_monitor.store import runs
from holter_monitor.store.control import Control, open_control
from holter_monitor.store.retention_duckdb import DuckDbStore
from holter_monitor.store.rolling import PIECE, Roller
from holter_monitor.store.tables import attempts
from holter_monitor.store.tables import runs as run_rows

METRICS = ("loss", "grad_norm", "step_time_seconds", "tokens")
T0 = 1_700_000_000 * 10**9


def fill(store: DuckDbStore, run: str, ranks: int, steps: int) -> None:
    """Rows in the order in which they would have arrived, step by step."""
    catalog, write = store._catalog, store._writer
    write.execute("BEGIN")
    ((table, _),) = catalog.place(write, run, dict.fromkeys(METRICS, "<f4"))[0].items()
    catalog.numbers(write, "attempts", run, ["a1"])
    catalog.numbers(write, "nodes", run, [f"node-{number:05}" for number in range(max(1, ranks // 8))])
    values = ", ".join(f"(2.5 + random() * 0.1)::FLOAT AS m{number}" for number in range(len(METRICS)))
    write.execute(
        f"INSERT INTO {table} BY NAME SELECT 1::INTEGER AS attempt, (i % {ranks} // 8 + 1)::INTEGER AS node, (i % {ranks})::INTEGER AS rank, "
        f"i // {ranks} AS step, {T0} + (i // {ranks}) * 1000000000 AS time_ns, {values} FROM range({ranks * steps}) t(i)"
    )
    write.execute("COMMIT")
    store.catalog = catalog.published()


SUMMARIES = """
    INSERT INTO step_summaries (run, metric, attempt, step, at, count, mean, min, max, median, min_rank, max_rank, non_finite)
    WITH RECURSIVE steps(step) AS (SELECT 0 UNION ALL SELECT step + 1 FROM steps WHERE step + 1 < :steps)
    SELECT :run, :metric, 'a1', step, 1.7e9 + step, 16, 2.5, 2.4, 2.6 + (step * 37 % 101) / 1e3, 2.5, 1, 2, 0 FROM steps
"""


def summarize(control: Control, run: str, metric: str, steps: int) -> None:
    """The step summaries, and their blocks as the detection consumer would have rolled them up."""
    roller = Roller()
    with control.write() as connection:
        connection.execute(sa.text(SUMMARIES), {"run": run, "metric": metric, "steps": steps})
        for step in range(0, steps, PIECE):
            roller.roll(connection, [{"run": run, "metric": metric, "attempt": "a1", "step": step}])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=16_384)
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        control = open_control(f"sqlite:///{data / 'control.sqlite'}")
        shapes = {"big": (arguments.ranks, arguments.steps), "long": (16, 100_000), "longest": (1, 1_000_000)}
        with control.write() as connection:
            ids = {name: runs.find_or_create(connection, {"project": "bench", "name": name}, 1.0)[0]["id"] for name in shapes}
            for name, (_, steps) in shapes.items():
                values = {"run": ids[name], "attempt": "a1", "number": 1, "started_at": 1.0, "state": "running", "mesh": {}}
                connection.execute(attempts.insert().values(**values, world_size=1, first_step=0, last_step=steps - 1))
            ids["summed"] = runs.find_or_create(connection, {"project": "bench", "name": "summed"}, 1.0)[0]["id"]
            values = {
                "run": ids["summed"],
                "attempt": "a1",
                "number": 1,
                "started_at": 1.0,
                "state": "running",
                "mesh": {},
                "world_size": 16,
            }
            connection.execute(attempts.insert().values(**values, first_step=0, last_step=999_999))
            connection.execute(run_rows.update().where(run_rows.c.name.in_(("long", "summed"))).values(world_size=16))
        summarize(control, ids["long"], "loss", arguments.steps)
        summarize(control, ids["summed"], "loss", 1_000_000)
        for metric in ("loss", "step_time_seconds"):
            summarize(control, ids["longest"], metric, 1_000_000)
        control.close()
        began = time.perf_counter()
        store = DuckDbStore(data / "samples.duckdb")
        for name, (ranks, steps) in shapes.items():
            fill(store, ids[name], ranks, steps)
        store.cursor().execute("CHECKPOINT")
        store.close()
        rows = sum(ranks * steps for ranks, steps in shapes.values())
        size = (data / "samples.duckdb").stat().st_size
        print(
            f"{rows:,} rows filled in {time.perf_counter() - began:.0f} s, {size / rows / len(METRICS):.2f} bytes a point; {os.cpu_count()} cores"
        )
        ask(data, ids, arguments)
    return 0


def ask(data: Path, ids: dict[str, str], arguments: argparse.Namespace) -> None:
    middle = arguments.steps // 2
    long = {"from_step": 0, "to_step": 99_999, "max_points": 1_000}
    questions = [
        ("all ranks at a step", 20, f"runs/{ids['big']}/ranks", {"metric": "loss", "step": middle}),
        ("one rank over 100,000 steps", 200, f"runs/{ids['long']}/series", {"metric": "loss", "rank": 3, **long}),
        *(
            (f"{how} over ranks, {arguments.steps} steps", 500, f"runs/{ids['big']}/series", {"metric": "loss", "agg": how})
            for how in ("min", "median", "max")
        ),
        (f"median from summaries, {arguments.steps} steps", 20, f"runs/{ids['long']}/series", {"metric": "loss", "agg": "median"}),
        ("1M steps to 1,000 points, the rank", 50, f"runs/{ids['longest']}/series", {"metric": "loss", "rank": 0}),
        ("1M steps to 1,000 points, the mean", 50, f"runs/{ids['longest']}/series", {"metric": "loss"}),
        *(
            (f"1M steps to 1,000 points, {how} of 16 ranks", 50, f"runs/{ids['summed']}/series", {"metric": "loss", "agg": how})
            for how in ("median", "max", "sum")
        ),
        ("1M steps, the curves of the run's page", 50, f"runs/{ids['longest']}/curves", {"metrics": "loss,step_time_seconds"}),
        ("heat map, 16,384 ranks x 120 steps", 500, f"runs/{ids['big']}/heatmap", {"metric": "loss", "columns": 120}),
        ("a rank of 16,384 over its steps", 200, f"runs/{ids['big']}/series", {"metric": "loss", "rank": 777}),
    ]
    command = [sys.executable, "-m", "holter.cli", "serve", "--port", "0", "--data", str(data), "--no-detection"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().split("listens on ")[1].split(",")[0]
        http = httpx.Client(base_url=f"{url}/api/v1/", timeout=120)
        print(f"{'question':40} {'first ms':>10} {'median ms':>10} {'worst ms':>10} {'aim ms':>8}")
        for name, aim, path, parameters in questions:
            took = []
            for _ in range(arguments.rounds + 1):
                began = time.perf_counter()
                answer = http.get(path, params=parameters)
                took.append((time.perf_counter() - began) * 1000)
                assert answer.status_code == 200, answer.text
                assert any(answer.json().get(key) for key in ("value", "values", "curves")), name
            print(f"{name:40} {took[0]:10.1f} {statistics.median(took[1:]):10.1f} {max(took[1:]):10.1f} {aim:8}", flush=True)
    finally:
        server.terminate()
        server.wait(30)


if __name__ == "__main__":
    raise SystemExit(main())
