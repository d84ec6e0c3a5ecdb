"""Look through logs of earlier runs: what went wrong, when, what it cost.

Reads CSV, JSON lines, Parquet, TensorBoard, wandb, trainer_state.json and the text logs of the usual frameworks, compressed or not;
what a file is, is told from its content. Exit status: 0 nothing of severity warning or higher, 3 something, 2 a log could not be read, or
none had a column that could be judged.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from holter_monitor.client import DEFAULT_URL, Client
from holter_monitor.errors import ClientError
from holter_monitor.imports import FORMATS
from holter_monitor.imports.records import LogError
from holter_monitor.offline import log_reference
from holter_monitor.offline.save import save
from holter_monitor.offline.scan import Scanned, ScanSettings, scan
from holter_monitor.report import as_json, page, terminal

CLEAN, UNREADABLE, TROUBLE = 0, 2, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a log, or a folder that is searched for logs")
    parser.add_argument("--format", choices=sorted(FORMATS), help="do not tell the format from the content")
    parser.add_argument(
        "--map", action="append", default=[], metavar="COLUMN=METRIC", type=mapping,
        help="what a column is: a metric (loss, step_time_seconds, …) or step, time, rank, event, run, ignored; may be repeated",
    )  # fmt: skip
    parser.add_argument("--attempts", action="store_true", help="the logs are attempts of one run, in the order given")
    parser.add_argument("--reference", metavar="LOG[#RUN]", help="hold the runs against this one, at equal tokens (or steps)")
    parser.add_argument("--all", action="store_true", help="show every incident of a run, not only the first dozen")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write the report as one page with plots")
    parser.add_argument(
        "--save", action="store_true", help="store each run in the collector at --url, silenced, to be looked at beside live ones"
    )
    parser.add_argument("--project", default="scans", help="where --save puts them (default: %(default)s)")
    parser.add_argument(
        "--url", default=os.environ.get("HOLTER_URL", DEFAULT_URL), help="the collector (default: $HOLTER_URL, or %(default)s)"
    )
    parser.add_argument("--token-file", type=Path, help="a file that holds the token (default: $HOLTER_TOKEN)")
    parser.add_argument("--json", action="store_true", help="a JSON array with one object per incident")


def mapping(text: str) -> tuple[str, str]:
    """`COLUMN=METRIC`; the column's name may contain `=` itself."""
    column, equals, metric = text.rpartition("=")
    if not (equals and column and metric):
        raise argparse.ArgumentTypeError(f"{text!r} is not COLUMN=METRIC")
    return column, metric


def run(arguments: argparse.Namespace) -> int:
    if arguments.save and arguments.attempts:
        print("holter scan: --save stores each log as a run of its own; it cannot be used with --attempts", file=sys.stderr)
        return UNREADABLE
    settings = ScanSettings(
        format=arguments.format, columns=dict(arguments.map), is_one_run=arguments.attempts, with_plots=arguments.html is not None
    )
    if arguments.reference:
        try:
            settings = replace(settings, reference=log_reference.read(arguments.reference, settings))
        except log_reference.NoReferenceError as error:
            print(f"holter scan: {error}", file=sys.stderr)
            return UNREADABLE
    console = Console(highlight=False)
    runs: list[Scanned] = []
    failures: list[LogError] = []
    for result in scan(arguments.paths, settings):
        if isinstance(result, LogError):
            failures.append(result)
            print(f"holter scan: {result}", file=sys.stderr)
            continue
        runs.append(result)
        if not arguments.json:
            terminal.show(console, result, limit=sys.maxsize if arguments.all else terminal.SHOWN_TROUBLES)
    if arguments.json:
        print(json.dumps(as_json.incidents(runs), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        terminal.close(console, runs, failures)
    if arguments.html is not None:
        arguments.html.write_text(page.render(runs, failures), encoding="utf-8")
    if arguments.save and not _saved(arguments, settings, runs):
        return UNREADABLE
    return exit_status(runs, failures)


def _saved(arguments: argparse.Namespace, settings: ScanSettings, runs: list[Scanned]) -> bool:
    try:
        token = arguments.token_file.read_text().strip() if arguments.token_file else os.environ.get("HOLTER_TOKEN")
        with Client(arguments.url, token=token) as client:
            for source, run, rows in save(client, arguments.project, arguments.paths, settings, runs):
                print(f"saved {source} as {arguments.project} {run}: {rows:,} points and events", file=sys.stderr)
    except (ClientError, OSError) as error:
        print(f"holter scan: not saved: {error}", file=sys.stderr)
        return False
    return True


def exit_status(runs: list[Scanned], failures: list[LogError]) -> int:
    if failures or not any(scanned.is_judged for scanned in runs):
        return UNREADABLE
    is_trouble = any(trouble.is_loud for scanned in runs for trouble in scanned.troubles)
    return TROUBLE if is_trouble else CLEAN
