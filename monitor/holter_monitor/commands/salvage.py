"""Look for damage in a stopped collector's files; what is damaged is set aside, and what can be read of it goes into a fresh file."""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from holter_monitor.app import claim
from holter_monitor.commands.serve import data_directory
from holter_monitor.errors import MonitorError
from holter_monitor.store import log_sqlite, salvage
from holter_monitor.store.control import open_control


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="the collector's data (default: $HOLTER_DATA, or ~/.local/share/holter)")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    """0: all sound; 3: something was damaged; 2: it could not be looked at."""
    data = arguments.data or data_directory(os.environ)
    if not data.is_dir():
        print(f"holter salvage: --data {data}: there is no such folder; name the one that `holter serve` was given", file=sys.stderr)
        return 2
    os.umask(0o077)
    try:
        lock = claim(data)
        found = [_look(path, create) for path, create in _files(data) if path.exists()]
        lock.close()
    except (MonitorError, OSError, sqlite3.OperationalError) as error:
        print(f"holter salvage: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps(found))
    else:
        if not found:
            print(f"{data} holds no store")
        for each in found:
            print(f"{each['file']}: {each['state']}")
            if each["rows"] is not None:
                print(f"  kept as {each['aside']}; saved " + ", ".join(f"{rows} {table}" for table, rows in each["rows"].items() if rows))
    return 3 if any(each["aside"] for each in found) else 0


def _files(data: Path) -> list[tuple[Path, Callable[[Path], None]]]:
    return [(data / "frames.sqlite", log_sqlite.create), (data / "control.sqlite", _create_control)]


def _create_control(path: Path) -> None:
    open_control(f"sqlite:///{path}").close()


def _look(path: Path, create: Callable[[Path], None]) -> dict[str, Any]:
    try:
        with closing(sqlite3.connect(path)) as connection:
            salvage.check(connection)
    except sqlite3.DatabaseError as error:
        if not salvage.is_damage(error):
            raise
        aside, rows = salvage.recover(path, create)
        return {"file": path.name, "state": f"damaged: {error}", "aside": aside.name, "rows": rows}
    return {"file": path.name, "state": "ok", "aside": None, "rows": None}
