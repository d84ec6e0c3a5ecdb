"""The node agent as a service: reads the rings of all trainings of this user on this node and ships them.

Trainings start an agent of their own when none lives; a service is for platforms that would rather start it themselves. It serves the
trainings that report to the same collector with the same token (HOLTER_URL, HOLTER_TOKEN or HOLTER_TOKEN_FILE, HOLTER_DIR).
"""

from __future__ import annotations

import argparse
import os
import sys

from holter.errors import HolterError
from holter.settings import Settings, private_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="the collector (default: HOLTER_URL, else http://127.0.0.1:8787)")
    parser.add_argument("--directory", help="where rings and spool lie (default: HOLTER_DIR, else shared memory and /var/tmp)")


def run(arguments: argparse.Namespace) -> int:
    """0 when it was asked to end, 1 when another agent serves this node already, 2 when a setting cannot be used."""
    from holter.node import open_lock, serve

    try:
        settings = Settings.read(os.environ, url=arguments.url, directory=arguments.directory)
        rings = private_folder(settings.ring_folders()[0])
    except (HolterError, OSError) as error:
        print(f"holter agent: {error}", file=sys.stderr)
        return 2
    lock = open_lock(rings)
    if lock is None:
        print(f"holter agent: another agent serves {rings}", file=sys.stderr)
        return 1
    serve(settings, rings, lock, is_service=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m holter.node", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())
