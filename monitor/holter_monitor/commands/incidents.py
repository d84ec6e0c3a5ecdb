"""List the incidents that are not over, look at one, acknowledge or resolve it."""

from __future__ import annotations

import argparse
import getpass
import itertools
import json
from typing import Any

from rich.console import Console
from rich.markup import escape

from holter_monitor.client import Client
from holter_monitor.commands import asking

COLOURS = {"critical": "bold red", "warning": "yellow", "info": "blue"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    asking.add_arguments(parser)
    parser.add_argument("incident", nargs="?", help="an incident's id; without it: all that are not resolved")
    parser.add_argument("--run", help="only of this run (name, project/name or id)")
    parser.add_argument("--kind")
    parser.add_argument("--all", action="store_true", help="resolved ones too")
    parser.add_argument("--limit", type=int, default=50, help="at most so many (default: %(default)s)")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--acknowledge", action="store_true", help="say that you are at it")
    action.add_argument("--resolve", action="store_true", help="say that it is over")
    parser.add_argument("--note", help="a word for whoever looks next")


def run(arguments: argparse.Namespace) -> int:
    if arguments.incident:
        return asking.ask(arguments, lambda client: _one(client, arguments))
    return asking.ask(arguments, lambda client: _all(client, arguments))


def _all(client: Client, arguments: argparse.Namespace) -> int:
    filters: dict[str, Any] = {"kind": arguments.kind}
    if arguments.run:
        filters["run"] = client.find_run(arguments.run)["id"]
    wanted = (each for each in client.incidents(**filters) if arguments.all or each["state"] != "resolved")
    found = list(itertools.islice(wanted, arguments.limit))
    if arguments.json:
        return asking.print_json(found)
    if not found:
        print("no incidents" if arguments.all else "no open incidents")
        return 0
    # Two lines each: a table of eight columns leaves a sentence a word a line at 80 columns.
    console = Console(highlight=False)
    for each in found:
        severity = f"[{COLOURS.get(each['severity'], 'default')}]{each['severity']} {each['kind']}[/]"
        where = escape(f"{each['project']}/{each['run_name']}")
        console.print(
            f"{severity} since step {each['onset_step']:,}, {each['state']}, {asking.ago(each['created'])}, {where}", soft_wrap=True
        )
        console.print(f"  [dim]{each['id']}[/]  {escape(each['summary'])}", soft_wrap=True)
    return 0


def _one(client: Client, arguments: argparse.Namespace) -> int:
    remark = {"actor": getpass.getuser()} | ({"note": arguments.note} if arguments.note else {})
    if arguments.acknowledge:
        found = client.acknowledge(arguments.incident, **remark)
    elif arguments.resolve:
        found = client.resolve(arguments.incident, **remark)
    elif arguments.note:
        found = client.note(arguments.incident, **remark)
    else:
        found = client.incident(arguments.incident)
    if arguments.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return 0
    _show(Console(), found)
    return 0


def _show(console: Console, found: dict[str, Any]) -> None:
    colour = COLOURS.get(found["severity"], "default")
    console.print(
        f"[{colour}]{found['severity']}[/] [bold]{found['kind']}[/] in {escape(found['project'])}/{escape(found['run_name'])}, {found['state']}"
    )
    console.print(escape(found["summary"]))
    end = "lasts" if found["end_step"] is None else f"passed at step {found['end_step']:,}"
    cost = "" if found["cost"] is None else f", {found['cost']:,.0f} s of wall time lost"
    console.print(f"since step {found['onset_step']:,}, seen at {found['detected_step']:,}, {end}{cost}")
    for name in ("ranks", "nodes"):
        if found[name]:
            console.print(f"{name}: {escape(', '.join(str(each) for each in found[name][:16]))}{' …' if len(found[name]) > 16 else ''}")
    for place, cause in enumerate(found["causes"], 1):
        console.print(f"{place}. {escape(str(cause.get('sentence') or cause.get('cause')))}")
        if cause.get("action"):
            console.print(f"   → {escape(str(cause['action']))}")
    for place, lead in enumerate(found["evidence"].get("look_at") or (), 1):
        console.print(f"look at {place}. {escape(str(lead))}")
    for change in found["history"]:
        words = " ".join(str(change[key]) for key in ("actor", "note") if change[key])
        console.print(f"[dim]{change['at']}  {change['change']}  {escape(words)}[/]")
    console.print(escape(found["url"]))
