"""Look through logs of earlier runs: what went wrong, when, what it cost.

Reads CSV, JSON lines, Parquet, TensorBoard, wandb, trainer_state.json and the text logs of the usual frameworks, compressed or not;
what a file is, is told from its content. Exit status: 0 nothing of severity warning or higher, 3 something, 2 a log could not be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from holter_monitor.imports import FORMATS
from holter_monitor.imports.records import LogError
from holter_monitor.report import as_json, page, terminal
from holter_monitor.scan import Scanned, ScanSettings, scan

CLEAN, UNREADABLE, TROUBLE = 0, 2, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a log, or a folder that is searched for logs")
    parser.add_argument("--format", choices=sorted(FORMATS), help="do not tell the format from the content")
    parser.add_argument(
        "--map", action="append", default=[], metavar="COLUMN=METRIC", type=mapping,
        help="what a column is: a metric (loss, step_time_seconds, …) or step, time, rank, event, run, ignored; may be repeated",
    )  # fmt: skip
    parser.add_argument("--attempts", action="store_true", help="the logs are attempts of one run, in the order given")
    parser.add_argument("--all", action="store_true", help="show every incident of a run, not only the first dozen")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write the report as one page with plots")
    parser.add_argument("--json", action="store_true", help="a JSON array with one object per incident")


def mapping(text: str) -> tuple[str, str]:
    """`COLUMN=METRIC`; the column's name may contain `=` itself."""
    column, equals, metric = text.rpartition("=")
    if not (equals and column and metric):
        raise argparse.ArgumentTypeError(f"{text!r} is not COLUMN=METRIC")
    return column, metric


def run(arguments: argparse.Namespace) -> int:
    settings = ScanSettings(
        format=arguments.format, columns=dict(arguments.map), is_one_run=arguments.attempts, with_plots=arguments.html is not None
    )
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
    return exit_status(runs, failures)


def exit_status(runs: list[Scanned], failures: list[LogError]) -> int:
    if failures:
        return UNREADABLE
    is_trouble = any(trouble.is_loud for scanned in runs for trouble in scanned.troubles)
    return TROUBLE if is_trouble else CLEAN
