"""Run the collector: takes frames, stores them, finds what is wrong, tells who can act."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from holter_monitor.errors import MonitorError
from holter_monitor.settings import Limits, Retention, Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host", default="127.0.0.1", help="the address to listen on; a public one needs tokens and TLS (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=8787, help="0: any free one (default: %(default)s)")
    parser.add_argument("--data", type=Path, help="where everything is kept (default: $HOLTER_DATA, or ~/.local/share/holter)")
    parser.add_argument(
        "--db", help="SQLAlchemy URL of the control store, like postgresql://user@host/holter (default: a SQLite file in --data)"
    )
    parser.add_argument(
        "--policies",
        type=Path,
        metavar="PATH",
        help="alert policies: a folder of *.yml, or one file (default: $HOLTER_POLICIES); see holter alerts",
    )
    parser.add_argument("--public-url", help="how people reach this collector; it stands in messages")
    parser.add_argument("--behind-proxy", action="store_true", help="a proxy in front of a public address speaks TLS")
    parser.add_argument("--allowed-host", action="append", default=[], help="a further name under which requests may come (Host header)")
    parser.add_argument("--tls-certificate", type=Path, help="PEM file")
    parser.add_argument("--tls-key", type=Path, help="PEM file")
    parser.add_argument(
        "--full-days", type=float, default=14, help="so long every step of every rank stays; then each tenth (default: %(default)s)"
    )
    parser.add_argument(
        "--days", type=float, default=90, help="so long per-rank points stay; summaries stay for good (default: %(default)s)"
    )
    parser.add_argument("--max-gib", type=float, default=64, help="the points' size from which the oldest go first (default: %(default)s)")
    parser.add_argument("--free-disk-mib", type=int, default=256, help="below so much free disk no frame is taken (default: %(default)s)")
    for what, more in (("writes", "frames, points and new runs"), ("requests", "all else")):
        parser.add_argument(
            f"--{what}-per-second",
            type=float,
            default=getattr(Limits, f"{what}_per_second"),
            metavar="N",
            help=f"{more} that one token may send; 0: no limit (default: %(default)g)",
        )
    parser.add_argument("--log", choices=("text", "json"), default="text", help="how the log on stderr is written (default: %(default)s)")
    parser.add_argument("--no-detection", action="store_true", help="store only")


def data_directory(environment: Mapping[str, str]) -> Path:
    home = environment.get("XDG_DATA_HOME") or Path("~/.local/share").expanduser()
    return Path(environment.get("HOLTER_DATA") or Path(home) / "holter")


def settings_from(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    return Settings(
        host=arguments.host,
        port=arguments.port,
        data=arguments.data or data_directory(environment),
        db=arguments.db,
        policies=arguments.policies or (Path(environment["HOLTER_POLICIES"]) if environment.get("HOLTER_POLICIES") else None),
        public_url=arguments.public_url,
        behind_proxy=arguments.behind_proxy,
        allowed_hosts=tuple(arguments.allowed_host),
        certificate=arguments.tls_certificate,
        key=arguments.tls_key,
        detect=not arguments.no_detection,
        retention=Retention(full_days=arguments.full_days, days=arguments.days, bytes=int(arguments.max_gib * 2**30)),
        limits=Limits(
            free_disk_bytes=arguments.free_disk_mib << 20,
            writes_per_second=arguments.writes_per_second,
            requests_per_second=arguments.requests_per_second,
        ),
    )


def announce(settings: Settings) -> None:
    print(f"Holter's collector listens on {settings.url}, keeps its data in {settings.data}", flush=True)


def run(arguments: argparse.Namespace) -> int:
    try:
        from holter_monitor import logs, server

        logs.install(arguments.log)

        os.umask(0o077)  # whatever is written is for us alone
        settings = settings_from(arguments, os.environ)
        return server.serve(settings, announce)
    except MonitorError as error:
        print(f"holter serve: {error}", file=sys.stderr)
        return 2
