"""Compare the fingerprints that the ranks left at their start (`holter.preflight(model, mesh)`): shards unlike, replicas equal.

Exit status: 0 nothing of severity warning or higher, 3 something, 2 there are no fingerprints to compare.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from holter_monitor.commands.audit import CLEAN, FOUND, UNREADABLE, as_json, show
from holter_monitor.findings import Finding, Severity

MAX_BYTES = 64 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fingerprints", type=Path, required=True, metavar="DIR", help="the folder that holter.preflight named")
    parser.add_argument("--json", action="store_true", help="a JSON array with one object per finding")


def run(arguments: argparse.Namespace) -> int:
    try:
        findings, ranks = compare(arguments.fingerprints)
    except (OSError, ValueError) as error:
        print(f"holter preflight: {error}", file=sys.stderr)
        return UNREADABLE
    if arguments.json:
        print(json.dumps([as_json(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        print(f"{ranks} ranks compared")
        show(findings)
    return FOUND if any(finding.severity >= Severity.WARNING for finding in findings) else CLEAN


def compare(folder: Path) -> tuple[list[Finding], int]:
    """`(findings, ranks)`. Raises `ValueError` where there is nothing to compare or a file is none of ours, `OSError`."""
    from holter_monitor.detectors.fingerprints import Fingerprints
    from holter_monitor.engine import Engine
    from holter_monitor.stream.steps import RunFacts

    files = sorted(folder.glob("*.json"), key=lambda file: (len(file.name), file.name))
    if not files:
        raise ValueError(f"{folder}: no fingerprints (expected 0.json, 1.json, … from holter.preflight)")
    engine = Engine(RunFacts(run="preflight", world_size=len(files)), [Fingerprints])
    findings: list[Finding] = []
    for file in files:
        if file.stat().st_size > MAX_BYTES:
            raise ValueError(f"{file}: too large for a fingerprint")
        events = json.loads(file.read_text())
        if not isinstance(events, list) or not all(isinstance(event, dict) and "event" in event for event in events):
            raise ValueError(f"{file}: not what holter.preflight writes")
        for event in events:
            findings += engine.hear(event)
    return findings + engine.finish(), len(files)
