"""Try detector settings on logs of earlier runs: recall, precision, delay, false alarms.

With labels it measures what was found; without, how often somebody would have been told. Two settings are put side by side by --compare:

    holter backtest traces --labels traces/index.jsonl --compare loss_spike.threshold=10 --min-recall 0.9 --max-false-alarms 2

Exit status: 0 the limits are kept (by the last setting), 1 they are not, 2 a log, a label or a setting could not be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from holter_monitor.alerting.policy_files import PolicyError
from holter_monitor.alerting.policy_files import load as load_policy
from holter_monitor.commands.scan import mapping
from holter_monitor.detectors import DETECTORS
from holter_monitor.imports import FORMATS
from holter_monitor.imports.records import LogError
from holter_monitor.offline.backtest import Tally, Teller, backtest, is_loud, routed
from holter_monitor.offline.labels import load
from holter_monitor.offline.scan import ScanSettings
from holter_monitor.offline.tuning import SettingError, tuned
from holter_monitor.report import comparison

KEPT, BROKEN, UNREADABLE = 0, 1, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="FOLDER", type=Path, help="logs, or folders of logs")
    parser.add_argument(
        "--labels", metavar="FILE", type=Path, help="what is known to be wrong with them (default: index.jsonl in the folder, if there)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="DETECTOR.PARAMETER=VALUE", help="may be repeated")
    parser.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="DETECTOR.PARAMETER=VALUE",
        help="a second setting, on top of --set; may be repeated",
    )
    parser.add_argument(
        "--policies", type=Path, metavar="PATH", help="count what this policy tells somebody (a folder of *.yml, or one file)"
    )
    parser.add_argument("--receiver", metavar="NAME", help="… or tells this receiver")
    parser.add_argument("--project", default="scans", help="the project that the policy's routes see (default: %(default)s)")
    parser.add_argument("--min-recall", type=float, metavar="SHARE", help="fail below it")
    parser.add_argument("--max-false-alarms", type=float, metavar="RATE", help="fail above so many per 100,000 records")
    parser.add_argument("--format", choices=sorted(FORMATS), help="do not tell the format from the content")
    parser.add_argument("--map", action="append", default=[], metavar="COLUMN=METRIC", type=mapping, help="as of `holter scan`")
    parser.add_argument("--details", action="store_true", help="name each miss and each false alarm")
    parser.add_argument("--json", action="store_true", help="a JSON object with one entry per setting")


def run(arguments: argparse.Namespace) -> int:
    try:
        sets = [arguments.set] + ([arguments.set + arguments.compare] if arguments.compare else [])
        makers = [tuned(each, DETECTORS) for each in sets]
        labels = {name: label for path in _label_files(arguments) for name, label in load(path).items()}
        tells = _teller(arguments)
    except (SettingError, LogError, PolicyError) as error:
        print(f"holter backtest: {error}", file=sys.stderr)
        return UNREADABLE
    names = [", ".join(each) or "default" for each in sets]
    reading = ScanSettings(format=arguments.format, columns=dict(arguments.map))
    tallies = [
        backtest(name, arguments.paths, labels, replace(reading, detectors=detectors), tells=tells)
        for name, detectors in zip(names, makers, strict=True)
    ]
    figures = [tally.as_json() for tally in tallies]
    if arguments.json:
        print(json.dumps({"settings": figures}, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        comparison.show(Console(highlight=False), figures, with_details=arguments.details)
    for failure in tallies[-1].failures:
        print(f"holter backtest: {failure}", file=sys.stderr)
    return exit_status(tallies[-1], min_recall=arguments.min_recall, max_false_alarms=arguments.max_false_alarms)


class _AnySecret(dict[str, str]):
    """An environment for policies that are only tried: whatever secret they name is there, and is nobody's."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return "unset"


def _teller(arguments: argparse.Namespace) -> Teller:
    if arguments.policies is None:
        if arguments.receiver is not None:
            raise SettingError("--receiver needs --policies")
        return is_loud
    policy = load_policy(arguments.policies, _AnySecret(), lambda _name, _facts: None)
    if arguments.receiver is not None and arguments.receiver not in policy.receivers:
        raise SettingError(f"--receiver {arguments.receiver!r}: the policy has {', '.join(sorted(policy.receivers))}")
    return routed(policy, arguments.project, arguments.receiver)


def _label_files(arguments: argparse.Namespace) -> list[Path]:
    if arguments.labels is not None:
        return [arguments.labels]
    return [path / "index.jsonl" for path in arguments.paths if (path / "index.jsonl").is_file()]


def exit_status(tally: Tally, *, min_recall: float | None, max_false_alarms: float | None) -> int:
    """Says which limit was not kept."""
    if tally.failures or not (tally.judged or tally.unlabelled):
        return UNREADABLE
    status = KEPT
    recall, rate = tally.recall, tally.false_alarms_per_100k
    if min_recall is not None and (recall is None or recall < min_recall):
        print(
            f"holter backtest: recall {'unknown, no labels' if recall is None else f'{recall:.3f}'} is below {min_recall}", file=sys.stderr
        )
        status = BROKEN
    if max_false_alarms is not None and rate is not None and rate > max_false_alarms:
        print(f"holter backtest: {rate:.3g} false alarms per 100,000 records are above {max_false_alarms}", file=sys.stderr)
        status = BROKEN
    return status
