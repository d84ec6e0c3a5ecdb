"""Before a launch: would this node hold the run back? For launch scripts, with an exit status, and for people.

    holter preflight --gpus 8 --storage /scratch --storage /data --needs 24TB
    holter preflight --collector --receivers all
    holter preflight --dataset /scratch/data --manifest data.json --copy-rate 3GB --fresh 7d     # a spare node: is it ready to step in?
    holter preflight --fingerprints DIR                                                # what holter.preflight(model, mesh) left

Without options: the GPUs, the working folder as storage, the collector. Exit status: 0 all well (perhaps with notes), 3 do not launch, 2 it could not look.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from holter.checkpoints.plan import seconds
from holter.errors import SettingsError

from holter_monitor.alerting.policy_files import PolicyError
from holter_monitor.client import DEFAULT_URL
from holter_monitor.preflight.check import Check, size

WELL, UNREADABLE, FAILED = 0, 2, 3
_SIGNS = {"ok": "✓", "note": "·", "fail": "✗"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--gpus", type=int, metavar="N", help="N cards must be there and well")
    add("--storage", type=Path, action="append", metavar="DIR", help="write and read back here, measure reads; may be repeated")
    add("--needs", type=_size, default=0, metavar="SIZE", help="what the run will leave on each --storage, as 24TB")
    add("--bandwidth", type=_size, default=0, metavar="SIZE", help="bytes a second that each --storage must be read at, as 2GB")
    add("--probe", type=_size, default=256 << 20, metavar="SIZE", help="how much is written and read back (default: 256MiB)")
    add("--dataset", type=Path, metavar="DIR", help="a dataset that must be whole, by --manifest")
    add("--manifest", type=Path, metavar="FILE", help="what --dataset must hold")
    add("--write-manifest", type=Path, metavar="FILE", help="write the manifest of --dataset as it is now, and do nothing else")
    add("--copy-rate", type=_size, default=0, metavar="SIZE", help="bytes a second at which what is missing could be copied, as 3GB")
    add("--fresh", type=_seconds, default=0.0, metavar="TIME", help="how old --manifest may be, as 36h or 7d")
    add("--collector", action="store_true", help="send a point to the collector and read it back; compare clocks")
    add("--url", default=os.environ.get("HOLTER_URL", DEFAULT_URL), help="the collector (default: $HOLTER_URL, or %(default)s)")
    add("--token-file", type=Path, help="a file that holds the token (default: $HOLTER_TOKEN)")
    add("--receivers", nargs="+", metavar="NAME", help="send these receivers a test message; `all` for every one")
    add("--policies", type=Path, metavar="PATH", help="the policy of --receivers; without it, what the environment says")
    add("--fingerprints", type=Path, metavar="DIR", help="compare the fingerprints in the folder that holter.preflight named")
    add("--json", action="store_true", help="a JSON array with one object per check")


def run(arguments: argparse.Namespace) -> int:
    try:
        if arguments.write_manifest is not None:
            return _write_manifest(arguments)
        checks = [_told(check, arguments) for check in _checks(arguments)]
    except (OSError, ValueError, PolicyError) as error:
        print(f"holter preflight: {error}", file=sys.stderr)
        return UNREADABLE
    if arguments.json:
        print(json.dumps([asdict(check) for check in checks], indent=2, ensure_ascii=False))
    else:
        failed = sum(check.mark == "fail" for check in checks)
        print(f"do not launch: {failed} of {len(checks)} checks failed" if failed else "ready")
    return FAILED if any(check.mark == "fail" for check in checks) else WELL


def _told(check: Check, arguments: argparse.Namespace) -> Check:
    """Each as soon as it is known: some take a while."""
    if not arguments.json:
        print(f"{_SIGNS[check.mark]} {check.what}: {check.found}" + (f"\n    → {check.remedy}" if check.remedy else ""), flush=True)
    return check


def _checks(arguments: argparse.Namespace) -> Iterator[Check]:
    from holter_monitor.preflight import collector, consistency, dataset, gpus, receivers, storage

    if (arguments.dataset is None) != (arguments.manifest is None):
        raise ValueError("--dataset and --manifest go together; --write-manifest makes one")
    wanted = (arguments.gpus, arguments.storage, arguments.dataset, arguments.receivers, arguments.fingerprints)
    is_plain = not arguments.collector and all(want is None for want in wanted)
    if is_plain or arguments.gpus is not None:
        yield from gpus.look(arguments.gpus)
    demands = storage.Demands(probe_bytes=arguments.probe, write_bytes=arguments.needs, bytes_per_second=arguments.bandwidth)
    for folder in arguments.storage or ([Path.cwd()] if is_plain else []):
        yield from storage.look(folder, demands)
    if arguments.dataset is not None:
        yield from dataset.look(arguments.dataset, dataset.read(arguments.manifest), arguments.copy_rate, arguments.fresh)
    if is_plain or arguments.collector:
        token = arguments.token_file.read_text().strip() if arguments.token_file else os.environ.get("HOLTER_TOKEN")
        yield from collector.look(arguments.url, token)
    if arguments.receivers:
        yield from receivers.look(arguments.receivers, arguments.policies, os.environ)
    if arguments.fingerprints is not None:
        yield from consistency.look(arguments.fingerprints)


def _write_manifest(arguments: argparse.Namespace) -> int:
    from holter_monitor.preflight import dataset

    if arguments.dataset is None:
        raise ValueError("--write-manifest wants --dataset DIR")
    manifest = dataset.write(arguments.dataset, arguments.write_manifest)
    print(f"{arguments.write_manifest}: {len(manifest.files)} files, {manifest.bytes:,} bytes")
    return WELL


def _size(text: str) -> int:
    try:
        return size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    try:
        return seconds(text)
    except SettingsError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: expected a number and s, m, h or d, as 36h") from None
