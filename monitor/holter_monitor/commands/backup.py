"""Copy all that a running collector keeps into a folder on its disk, from which another can be started."""

from __future__ import annotations

import argparse

from holter_monitor.client import Client
from holter_monitor.commands import asking


def add_arguments(parser: argparse.ArgumentParser) -> None:
    asking.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    def make(client: Client) -> int:
        made = client.back_up()
        if arguments.json:
            return asking.print_json([made])
        print(f"{made['folder']} on the collector's machine: {sum(made['files'].values()) / 2**20:.1f} MiB")
        print("Start another from a copy of it: holter serve --data FOLDER")
        return 0

    return asking.ask(arguments, make)
