"""The fingerprints that the ranks left at their start (`holter.preflight(model, mesh)`), compared: shards unlike, replicas equal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from holter_monitor.findings import Finding, Severity, as_json
from holter_monitor.preflight.check import Check, Mark

MAX_BYTES = 64 << 20


def look(folder: Path) -> Iterator[Check]:
    """Raises `ValueError` where there is nothing to compare or a file is none of ours, `OSError`."""
    what = "parallel consistency"
    findings, ranks = compare(folder)
    for finding in findings:
        remedy = next((str(finding.evidence[word]) for word in ("remedy", "usual_cause") if word in finding.evidence), "")
        mark: Mark = "fail" if finding.severity >= Severity.WARNING else "note"
        yield Check(what=what, mark=mark, found=finding.summary, remedy=remedy, finding=as_json(finding))
    if not findings:
        yield Check(what=what, mark="ok", found=f"{ranks} ranks compared: shards are unlike, copies are equal")


def compare(folder: Path) -> tuple[list[Finding], int]:
    """`(findings, ranks)`. Raises as `look`."""
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
