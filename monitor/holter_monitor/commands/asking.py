"""What the commands that ask a collector have in common: where it is, who asks, how its complaint is said."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from holter_monitor.client import DEFAULT_URL, Client
from holter_monitor.errors import ClientError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url", default=os.environ.get("HOLTER_URL", DEFAULT_URL), help="the collector (default: $HOLTER_URL, or %(default)s)"
    )
    parser.add_argument("--token-file", type=Path, help="a file that holds the token (default: $HOLTER_TOKEN)")
    parser.add_argument("--json", action="store_true", help="for programs")


def ask(arguments: argparse.Namespace, question: Callable[[Client], int]) -> int:
    """The question's exit status; 2 and one line where the collector cannot answer."""
    try:
        token = arguments.token_file.read_text().strip() if arguments.token_file else os.environ.get("HOLTER_TOKEN")
        with Client(arguments.url, token=token) as client:
            return question(client)
    except (ClientError, OSError) as error:
        print(f"holter: {error}", file=sys.stderr)
        return 2


def print_json(rows: Iterable[Any]) -> int:
    print(json.dumps(list(rows), indent=1, ensure_ascii=False))
    return 0


def ago(moment: str, now: datetime | None = None) -> str:
    """How long ago an RFC 3339 moment was, in the largest unit that fits."""
    then = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    seconds = max(0, int(((now or datetime.now(timezone.utc)) - then).total_seconds()))
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"
