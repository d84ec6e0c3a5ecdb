"""The collector's side of `holter doctor`: whether one could work, or works, on this machine. Changes nothing."""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import sqlalchemy as sa

from holter_monitor import __version__
from holter_monitor.alerting.policy_files import PolicyError, chosen
from holter_monitor.errors import MonitorError
from holter_monitor.notify.receivers import notifier
from holter_monitor.settings import Limits, Settings
from holter_monitor.store import salvage
from holter_monitor.store.control import PATIENCE
from holter_monitor.store.tables import outbox

Seen = tuple[str, str, str, str]
"""What was looked at; `ok`, `note` or `fail`; what was found; the remedy."""
READ_BYTES = 2 << 30
"""A larger file is not read through: it would take minutes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("a collector on this machine (with --data it is looked at instead of this node)")
    group.add_argument("--data", type=Path, help="its folder, as holter serve has it")
    group.add_argument("--db", help="its control store, where that is no file in --data")
    group.add_argument("--policies", type=Path, help="its alert policies")
    group.add_argument("--port", type=int, default=8787, help="where it listens (default: %(default)s)")


def look(arguments: argparse.Namespace) -> Iterator[Seen]:
    yield "versions", "ok", f"holter-monitor {__version__}, SQLite {sqlite3.sqlite_version}, DuckDB {duckdb.__version__}", ""
    data: Path = arguments.data
    is_running = _is_held(data / "lock")
    yield from _folder(data, is_running=is_running)
    yield from _port(arguments.port, is_running=is_running)
    files = [("frame log", data / "frames.sqlite")] + ([] if arguments.db else [("control store", data / "control.sqlite")])
    seen = [_file(name, path) for name, path in files if path.exists()]
    yield from seen
    if ("control store", "fail") not in [(name, mark) for name, mark, *_ in seen]:
        yield from _database(Settings(data=data, db=arguments.db).control_url, data / "control.sqlite")
    yield from _policies(arguments.policies or (Path(os.environ["HOLTER_POLICIES"]) if os.environ.get("HOLTER_POLICIES") else None))


def _is_held(lock: Path) -> bool:
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _folder(data: Path, *, is_running: bool) -> Iterator[Seen]:
    place = next(folder for folder in (data.absolute(), *data.absolute().parents) if folder.exists())
    free, floor = shutil.disk_usage(place).free, Limits().free_disk_bytes
    said = f"{data}, {free / 1e9:.1f} GB free, " + ("a collector runs on it" if is_running else "no collector runs on it")
    if not (place.is_dir() and os.access(place, os.W_OK)):
        yield "data", "fail", f"{place} is no folder that can be written", "name another with --data, or give it to the user who serves"
    elif free < floor:
        yield "data", "fail", said, f"below {floor >> 20} MiB no frame is taken (--free-disk-mib): make room, or keep fewer --days"
    elif free < 10 * floor:
        yield "data", "note", said, f"frames are refused below {floor >> 20} MiB"
    else:
        yield "data", "ok", said, ""
    if data.is_dir() and data.stat().st_mode & 0o077:
        yield "data's rights", "note", f"others may read {data} (mode {data.stat().st_mode & 0o777:o})", f"chmod 700 {data}"


def _port(port: int, *, is_running: bool) -> Iterator[Seen]:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError as error:
            if not is_running:
                yield "port", "fail", f"{port}: {error.strerror}, and by no collector on this folder", f"holter serve --port {port + 1}"
            else:
                yield "port", "ok", f"{port} is listened at", ""
        else:
            if is_running:
                yield "port", "note", f"nobody listens at {port}", "does it serve another --port?"
            else:
                yield "port", "ok", f"{port} is free", ""


def _file(name: str, path: Path) -> Seen:
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    if path.stat().st_size > READ_BYTES:
        return name, "note", f"{size}, too large to be read through here", "stop the collector and run holter salvage"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
            salvage.check(connection)
    except sqlite3.Error as error:
        remedy = "stop the collector and run holter salvage" if salvage.is_damage(error) else "who holds it?"
        return name, "fail", f"{path}: {error}", remedy
    return name, "ok", f"{path.name}, {size}, sound", ""


def _database(url: str, file: Path) -> Iterator[Seen]:
    """Whether it answers, and what stands in its outbox."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        yield "control store", "fail", f"--db {url!r} is no SQLAlchemy URL", "like postgresql://user@host/holter"
        return
    if parsed.get_backend_name() == "sqlite":
        if not file.exists():
            yield "control store", "ok", "none yet; holter serve makes it", ""
            return
        engine = sa.create_engine(f"sqlite:///file:{file.absolute()}?mode=ro&uri=true", connect_args={"timeout": 5})
    else:
        engine = sa.create_engine(parsed.set(drivername="postgresql+psycopg"), connect_args=PATIENCE)
    try:
        began = time.perf_counter()
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
            milliseconds = (time.perf_counter() - began) * 1e3
            if parsed.get_backend_name() != "sqlite":
                yield "control store", "ok", f"{parsed.render_as_string()} answers in {milliseconds:.0f} ms", ""
            yield from _outbox(connection)
    except sa.exc.SQLAlchemyError as error:
        words = str(getattr(error, "orig", error)).splitlines()[0]
        yield "control store", "fail", f"{parsed.render_as_string()}: {words}", "is it up, and may this user connect?"
    finally:
        engine.dispose()


def _outbox(connection: sa.Connection) -> Iterator[Seen]:
    """Per receiver the notices that wait or were given up, with the newest error."""
    waits = sa.func.sum(sa.case((outbox.c.status.in_(("ready", "leased")), 1), else_=0))
    dead = sa.func.sum(sa.case((outbox.c.status == "dead", 1), else_=0))
    counts = sa.select(outbox.c.receiver, waits, dead).group_by(outbox.c.receiver).order_by(outbox.c.receiver)
    for receiver, num_waiting, num_dead in connection.execute(counts).all():
        newest = sa.select(outbox.c.last_error).where(outbox.c.receiver == receiver, outbox.c.last_error.is_not(None))
        error = connection.execute(newest.order_by(outbox.c.id.desc()).limit(1)).scalar() if num_waiting or num_dead else None
        said = f"{num_waiting} notices wait, {num_dead} were given up" + (f"; {error}" if error else "")
        remedy = f"holter alerts test {receiver}" if num_dead or error else ""
        yield f"receiver {receiver}", "fail" if num_dead else "note" if error else "ok", said, remedy


def _policies(path: Path | None) -> Iterator[Seen]:
    try:
        policy = chosen(path, os.environ, notifier)
    except (PolicyError, MonitorError, ValueError, OSError) as error:
        yield "alert policies", "fail", str(error), "holter alerts check"
        return
    named = ", ".join(sorted(policy.receivers))
    where = str(path) if path else "from the environment"
    if set(policy.receivers) <= {"log"}:
        yield (
            "alert policies",
            "note",
            "no receiver: incidents stand on the page and in the log only",
            "set HOLTER_SLACK_WEBHOOK, or --policies",
        )
    else:
        yield "alert policies", "ok", f"{where}: {named}", ""
