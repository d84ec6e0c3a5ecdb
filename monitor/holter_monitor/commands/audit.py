"""Look into a saved checkpoint: are shards unlike and copies equal? No run, no GPU, no torch needed.

Reads torch DCP folders, Megatron-LM and DeepSpeed `mp_rank_XX`, GPT-NeoX, nanotron, and consolidated safetensors (whose halves, quarters and
eighths are looked at as if they were shards). Nothing that is stored in a file is run. Exit status: 0 nothing of severity warning or higher,
3 something, 2 the checkpoint could not be read or holds nothing to compare.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from holter_monitor.findings import Finding, Severity, as_json

CLEAN, UNREADABLE, FOUND = 0, 2, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="CHECKPOINT_DIR")
    parser.add_argument("--json", action="store_true", help="a JSON array with one object per finding")


def run(arguments: argparse.Namespace) -> int:
    from holter_monitor.checkpoints.errors import CheckpointError
    from holter_monitor.checkpoints.stored import read
    from holter_monitor.consistency.audit import audit

    try:
        checkpoint = read(arguments.path)
        answer = audit(checkpoint)
    except (CheckpointError, OSError) as error:
        print(f"holter audit: {error}", file=sys.stderr)
        return UNREADABLE
    if arguments.json:
        print(json.dumps([as_json(finding) for finding in answer.findings], indent=2, ensure_ascii=False))
    else:
        print(f"{checkpoint.format} checkpoint {arguments.path}: {answer.shards} sharded and {answer.copies} replicated tensors compared")
        show(answer.findings)
    if not answer.compared:
        print(f"holter audit: {arguments.path}: nothing to compare: no tensor has parts of several ranks", file=sys.stderr)
        return UNREADABLE
    return FOUND if any(finding.severity >= Severity.WARNING for finding in answer.findings) else CLEAN


def show(findings: list[Finding]) -> None:
    if not findings:
        print("shards are unlike, copies are equal")
    for finding in findings:
        print(f"{finding.severity.word.upper()} {finding.kind}: {finding.summary}")
        for word in ("remedy", "usual_cause", "legitimate", "declare"):
            if word in finding.evidence:
                print(f"  {word.replace('_', ' ')}: {finding.evidence[word]}")
