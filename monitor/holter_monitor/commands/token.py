"""Make, list and revoke the tokens that a collector asks for. Works on its control store, so it needs the collector's rights, not its answers."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from holter_monitor import tokens
from holter_monitor.api.shapes import moment, moment_or_none
from holter_monitor.commands.serve import data_directory
from holter_monitor.errors import MonitorError
from holter_monitor.settings import Settings
from holter_monitor.store import audit
from holter_monitor.store import tokens as rows
from holter_monitor.store.control import Control, open_control

UNITS = {"h": 3_600, "d": 86_400, "y": 365 * 86_400}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="token_verb", required=True, metavar="create|list|revoke")
    create = verbs.add_parser("create", help="make one; it is shown this once")
    create.add_argument("name", help="who or what uses it; stands in the audit log")
    create.add_argument("--scope", action="append", choices=tokens.SCOPES, help="may be given several times (default: write)")
    create.add_argument("--project", default="*", help="only this project (default: all)")
    create.add_argument("--expires", type=_duration, metavar="90d", help="h, d or y from now (default: never)")
    verbs.add_parser("list", help="all of them, without their secrets")
    revoke = verbs.add_parser("revoke", help="it is refused within seconds")
    revoke.add_argument("token", help="its id or name")
    for verb in verbs.choices.values():
        verb.add_argument("--data", type=Path, help="the collector's data (default: $HOLTER_DATA, or ~/.local/share/holter)")
        verb.add_argument("--db", help="the collector's --db")
        verb.add_argument("--json", action="store_true", help="for programs")


def _duration(text: str) -> float:
    found = re.fullmatch(r"(\d{1,5})([hdy])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: write 12h, 90d or 1y")
    return int(found[1]) * UNITS[found[2]]


def run(arguments: argparse.Namespace) -> int:
    os.umask(0o077)
    settings = Settings(data=arguments.data or data_directory(os.environ), db=arguments.db)
    try:
        settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        control = open_control(settings.control_url)
        return {"create": _create, "list": _list, "revoke": _revoke}[arguments.token_verb](control, arguments)
    except (MonitorError, OSError) as error:
        print(f"holter token: {error}", file=sys.stderr)
        return 2


def _create(control: Control, arguments: argparse.Namespace) -> int:
    token, now, scopes = tokens.make(), time.time(), arguments.scope or ["write"]
    facts = {"name": arguments.name, "scopes": scopes, "project": arguments.project}
    expires = None if arguments.expires is None else now + arguments.expires
    with control.write() as connection:
        key = rows.add(connection, digest=tokens.digest(token), expires=expires, now=now, **facts)
        audit.record(connection, getpass.getuser(), "create token", key, facts, now=now)
    if arguments.json:
        print(json.dumps({"id": key, "token": token, **facts, "expires": moment_or_none(expires)}))
    else:
        print(token)
        print(f"# {arguments.name} ({key}): {', '.join(scopes)} in {arguments.project}. It is not shown again.", file=sys.stderr)
    return 0


def _list(control: Control, arguments: argparse.Namespace) -> int:
    with control.read() as connection:
        found = rows.page(connection)
    if arguments.json:
        times = ("created_at", "expires_at", "revoked_at")
        print(
            json.dumps([{key: moment_or_none(value) if key in times else value for key, value in row.items()} for row in found], indent=1)
        )
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "scopes", "project", "created", "ends", "id"):
        table.add_column(column)
    for row in found:
        ends = f"revoked {moment(row['revoked_at'])[:10]}" if row["revoked_at"] else (moment_or_none(row["expires_at"]) or "never")[:10]
        table.add_row(escape(row["name"]), " ".join(row["scopes"]), escape(row["project"]), moment(row["created_at"])[:10], ends, row["id"])
    Console().print(table)
    return 0


def _revoke(control: Control, arguments: argparse.Namespace) -> int:
    now = time.time()
    with control.write() as connection:
        found = rows.revoke(connection, arguments.token, now)
        for key in found:
            audit.record(connection, getpass.getuser(), "revoke token", key, now=now)
    if arguments.json:
        print(json.dumps(found))
    elif found:
        print(f"revoked {', '.join(found)}")
    if not found:
        print(f"holter token: no token {arguments.token!r} that is not revoked already; `holter token list` lists them", file=sys.stderr)
    return 0 if found else 2
