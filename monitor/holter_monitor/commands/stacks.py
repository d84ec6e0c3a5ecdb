"""Ask for the Python stacks of all ranks of a run, and show them, equal ones together."""

from __future__ import annotations

import argparse
import getpass
import sys
import time
from typing import Any

from rich.console import Console
from rich.markup import escape

from holter_monitor.client import Client
from holter_monitor.commands import asking
from holter_monitor.errors import ClientError
from holter_monitor.ranges import folded, spans

LOOK_SECONDS = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    asking.add_arguments(parser)
    parser.add_argument("run", help="a run's name, project/name or id")
    parser.add_argument("--node", help="only the ranks of this node")
    parser.add_argument("--last", action="store_true", help="ask for nothing: show the newest that are there")
    parser.add_argument("--wait", type=float, default=45.0, metavar="SECONDS", help="for the nodes' answers (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    return asking.ask(arguments, lambda client: _stacks(client, arguments))


def _stacks(client: Client, arguments: argparse.Namespace) -> int:
    run = client.find_run(arguments.run)["id"]
    found = client.stacks(run) if arguments.last else _asked(client, run, arguments)
    if arguments.json:
        return asking.print_json([found])
    _show(Console(highlight=False), found)
    return 0 if found["items"] else 3


def _asked(client: Client, run: str, arguments: argparse.Namespace) -> dict[str, Any]:
    try:
        client.ask_for_stacks(run, actor=getpass.getuser(), node=arguments.node)
    except ClientError as error:
        if error.status != 429:
            raise
        print("holter: somebody asked less than 20 s ago; these are the answers to that", file=sys.stderr)
    until = time.monotonic() + max(0.0, arguments.wait)
    while (found := client.stacks(run))["waiting"] and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
    return found


def _show(console: Console, found: dict[str, Any]) -> None:
    if not found["items"]:
        waiting = folded(found["waiting"])
        print(f"no stacks yet; {waiting} did not answer" if waiting else "no stacks: no node agent of this run is alive to take them")
        return
    step = "" if found["step"] is None else f" at step {found['step']:,}"
    console.print(f"[bold]{escape(found['sentence'])}[/], taken {asking.ago(found['taken'])}{step}", soft_wrap=True)
    for group in found["items"]:
        ranks = spans(group["ranks"])
        console.print(f"\n[bold]rank{'s' if group['count'] > 1 else ''} {ranks}[/] ({group['count']})", soft_wrap=True)
        for line in group["stack"].splitlines():
            console.print(f"  {escape(line)}", soft_wrap=True)
    if found["waiting"]:
        console.print(f"\n[yellow]no answer yet from {escape(folded(found['waiting']))}[/]", soft_wrap=True)
