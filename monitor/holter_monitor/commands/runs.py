"""List the runs that a collector knows, or look at one."""

from __future__ import annotations

import argparse
import itertools
import json
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from holter_monitor.client import Client
from holter_monitor.commands import asking

COLOURS = {"running": "green", "failed": "red", "silent": "yellow", "finished": "blue"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    asking.add_arguments(parser)
    parser.add_argument("run", nargs="?", help="a run's name, project/name or id; without it: all")
    parser.add_argument("--project")
    parser.add_argument("--state", choices=("waiting", "running", "finished", "failed", "silent"))
    parser.add_argument("--limit", type=int, default=50, help="at most so many (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    if arguments.run:
        return asking.ask(arguments, lambda client: _one(client, arguments))
    return asking.ask(arguments, lambda client: _all(client, arguments))


def _all(client: Client, arguments: argparse.Namespace) -> int:
    found = list(itertools.islice(client.runs(project=arguments.project, state=arguments.state), arguments.limit))
    if arguments.json:
        return asking.print_json(found)
    if not found:
        print(
            "no runs"
            + (" that fit" if arguments.project or arguments.state else " yet: `import holter; run = holter.init(…)` in train.py makes one")
        )
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("run", "state", "last step", "ranks", "active"):
        table.add_column(
            column, justify="right" if column in ("last step", "ranks") else "left", no_wrap=column in ("run", "state"), overflow="fold"
        )
    table.add_column("id", no_wrap=True, min_width=32)  # what the next command needs is never cut
    for each in found:
        state = f"[{COLOURS.get(each['state'], 'default')}]{each['state']}[/]"
        last = "–" if each["last_step"] is None else f"{each['last_step']:,}"
        table.add_row(
            escape(f"{each['project']}/{each['name']}"), state, last, str(each["world_size"]), asking.ago(each["updated"]), each["id"]
        )
    Console().print(table)
    return 0


def _one(client: Client, arguments: argparse.Namespace) -> int:
    found = client.find_run(arguments.run)
    attempts, metrics = client.attempts(found["id"]), client.metrics(found["id"])
    open_incidents = [each for each in client.incidents(run=found["id"]) if each["state"] != "resolved"]
    if arguments.json:
        print(json.dumps(found | {"attempts": attempts, "metrics": metrics, "incidents": open_incidents}, indent=1, ensure_ascii=False))
        return 0
    console = Console()
    console.print(f"[bold]{escape(found['project'])}/{escape(found['name'])}[/]  {found['state']}  {escape(found['url'])}")
    console.print(_attempts(attempts))
    console.print(f"metrics: {escape(', '.join(metrics) or 'none yet')}")
    for each in open_incidents:
        console.print(f"[red]●[/] {escape(each['kind'])} since step {each['onset_step']}: {escape(each['summary'])}  ({each['id']})")
    return 0


def _attempts(attempts: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("attempt", "state", "steps", "ranks", "started"):
        table.add_column(column)
    for each in attempts:
        steps = "–" if each["first_step"] is None else f"{each['first_step']:,} – {each['last_step']:,}"
        table.add_row(escape(each["attempt"]), each["state"], steps, str(each["world_size"]), asking.ago(each["started"]))
    return table
