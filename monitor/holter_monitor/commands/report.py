"""A run's account, or that of all runs together: goodput, where the time went, failures, incidents and what they cost. Markdown, JSON, or a page."""

from __future__ import annotations

import argparse
import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

from holter_monitor.client import Client
from holter_monitor.commands import asking
from holter_monitor.report import account, fleet_page, run_page

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    asking.add_arguments(parser)
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument("run", nargs="?", help="a run's name, project/name or id")
    whose.add_argument("--fleet", action="store_true", help="all runs together, weighed by their GPUs")
    parser.add_argument("--since", type=_moment, default="7d", metavar="WHEN", help="of --fleet: 24h, 7d, 4w, or RFC 3339 (default: 7d)")
    parser.add_argument("--until", type=_moment, metavar="WHEN", help="of --fleet: the same (default: now)")
    parser.add_argument("--project", help="of --fleet: the runs of one project")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write it as one page instead")
    parser.add_argument("--gpu-hour-price", type=_price, metavar="PRICE", help="price the lost time")


def run(arguments: argparse.Namespace) -> int:
    return asking.ask(arguments, lambda client: _fleet(client, arguments) if arguments.fleet else _report(client, arguments))


def _report(client: Client, arguments: argparse.Namespace) -> int:
    found = account.read(client, arguments.run, gpu_hour_price=arguments.gpu_hour_price, with_series=not arguments.json)
    if arguments.html is not None:
        return _write(arguments.html, run_page.html(found))
    if arguments.json:
        facts = {
            "run": found.run,
            "goodput": found.goodput,
            "attempts": found.attempts,
            "incidents": found.incidents,
            "checkpoints": found.checkpoints,
        }
        print(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        print(run_page.markdown(found))
    return 0


def _fleet(client: Client, arguments: argparse.Namespace) -> int:
    price = arguments.gpu_hour_price
    found = client.fleet(since=arguments.since, until=arguments.until, project=arguments.project, gpu_hour_price=price)
    if arguments.html is not None:
        return _write(arguments.html, fleet_page.html(found, price))
    print(json.dumps(found, indent=1, ensure_ascii=False) if arguments.json else fleet_page.markdown(found, price))
    return 0


def _write(path: Path, text: str) -> int:
    path.write_text(text, encoding="utf-8")
    print(f"written to {path}")
    return 0


def _moment(text: str) -> str:
    """`7d` is so long ago; RFC 3339 is itself."""
    ago = re.fullmatch(r"(\d{1,5})([hdw])", text)
    if ago:
        return (datetime.now(timezone.utc) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})).isoformat()
    try:
        datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: say 24h, 7d, 4w or 2026-11-25T08:00:00Z") from error
    return text


def _price(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text}: a price is a number from 0 on")
    return value
