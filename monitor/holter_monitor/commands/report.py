"""One run's account: goodput, where the time went, attempts, incidents and what they cost. As Markdown, or as a page with plots."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from holter_monitor.client import Client
from holter_monitor.commands import asking
from holter_monitor.report import account, run_page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    asking.add_arguments(parser)
    parser.add_argument("run", help="a run's name, project/name or id")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write it as one page with plots instead")
    parser.add_argument("--gpu-hour-price", type=_price, metavar="PRICE", help="price the lost time")


def run(arguments: argparse.Namespace) -> int:
    return asking.ask(arguments, lambda client: _report(client, arguments))


def _report(client: Client, arguments: argparse.Namespace) -> int:
    found = account.read(client, arguments.run, gpu_hour_price=arguments.gpu_hour_price, with_series=arguments.html is not None)
    if arguments.html is not None:
        arguments.html.write_text(run_page.html(found), encoding="utf-8")
        print(f"written to {arguments.html}")
    elif arguments.json:
        facts = {"run": found.run, "goodput": found.goodput, "attempts": found.attempts, "incidents": found.incidents}
        print(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        print(run_page.markdown(found))
    return 0


def _price(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text}: a price is a number from 0 on")
    return value
