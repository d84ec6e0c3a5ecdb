"""The first minute: one fingerprint of every rank before training starts, compared at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holter.identity import identify

FOUND = 3
"""Exit status of `holter preflight` with findings."""


@dataclass(frozen=True, slots=True)
class Preflight:
    """What the check came to. `findings` are JSON objects (`kind, severity, ranks, summary, …`); `compared` of `world_size` ranks took part."""

    compared: int
    world_size: int
    findings: list[dict[str, Any]] = field(default_factory=list)
    folder: str = ""
    problem: str = ""
    """Why there is no answer, or not of all ranks, and what to do; else empty."""

    @property
    def is_clean(self) -> bool:
        return not self.problem and not any(finding.get("severity") in ("warning", "critical") for finding in self.findings)


@dataclass
class _Collected:
    """Stands where the run stands: keeps the events instead of recording them."""

    rank: int
    events: list[dict[str, Any]] = field(default_factory=list)
    last_step: int = -1

    def event(self, word: str, /, *, step: int | None = None, **attrs: object) -> None:
        self.events.append({"event": word, "rank": self.rank, "step": step, "time_ns": 0, "attrs": attrs})


def preflight(
    model: Any,
    mesh: Any = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    seconds: float = 60.0,
    exit_on_findings: bool = False,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Preflight | None:
    """Compare the model's tensors over all ranks, once, after initialisation and before the first step. Every rank calls it.

    Each rank puts its 512 bytes into `folder` (default: `HOLTER_DIR`, else the temporary folder; over several nodes it must be shared).
    Rank 0 waits up to `seconds` for the others, compares, prints and returns the answer; the others return None at once. Nothing is raised
    for what is found, unless `exit_on_findings`: then rank 0 ends with exit status 3. `options` are those of `run.watch`.
    """
    words = os.environ if environment is None else environment
    who = identify(words)
    place = Path(folder or words.get("HOLTER_DIR") or tempfile.gettempdir()) / f"preflight-{who.attempt.replace('/', '-')}"
    try:
        _write(place, who.rank, _events(model, mesh, who.rank, options))
    except Exception as error:  # noqa: BLE001  a check must not stop what it checks
        answer = Preflight(0, who.world_size, problem=f"no fingerprint ({type(error).__name__}: {error})")
    else:
        if who.rank != 0:
            return None
        answer = _compare(place, _await(place, who.world_size, seconds), who.world_size)
    if who.rank == 0:
        sys.stderr.write(_text(answer))
    if exit_on_findings and answer.findings and not answer.is_clean:
        raise SystemExit(FOUND)
    return answer


def _events(model: Any, mesh: Any, rank: int, options: dict[str, Any]) -> list[dict[str, Any]]:
    from holter.parallel.watching import begin

    collected = _Collected(rank)
    begin(collected, model, None, mesh=mesh, **options)
    return collected.events


def _write(folder: Path, rank: int, events: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = folder / f".{rank}.draft"
    draft.write_text(json.dumps(events))
    draft.replace(folder / f"{rank}.json")


def _await(folder: Path, world_size: int, seconds: float) -> int:
    until = time.monotonic() + seconds
    while True:
        here = sum(1 for _ in folder.glob("*.json"))
        if here >= world_size or time.monotonic() > until:
            return here
        time.sleep(0.05)


def _compare(folder: Path, here: int, world_size: int) -> Preflight:
    """The comparison belongs to the monitor; the SDK asks its command, so that training needs no more than the SDK."""
    command = [sys.executable, "-m", "holter.cli", "preflight", "--fingerprints", str(folder), "--json"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        checks = json.loads(answer.stdout) if answer.returncode in (0, FOUND) else None
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return Preflight(here, world_size, folder=str(folder), problem=f"not compared ({type(error).__name__}: {error})")
    if checks is None:
        hint = f"not compared: run `holter preflight --fingerprints {folder}` where holter-monitor is installed"
        return Preflight(here, world_size, folder=str(folder), problem=hint)
    findings = [check["finding"] for check in checks if check["finding"]]
    missing = (
        ""
        if here >= world_size
        else f"{world_size - here} ranks left no fingerprint in {folder} in time (over several nodes it must be shared)"
    )
    return Preflight(here, world_size, findings, str(folder), missing)


def _text(answer: Preflight) -> str:
    lines = [f"holter preflight: {answer.compared} of {answer.world_size} ranks compared"]
    lines += [f"  {answer.problem}"] if answer.problem else []
    lines += [f"  {finding['severity']}: {finding['summary']}" for finding in answer.findings]
    if len(lines) == 1:
        lines[0] += "; equal where it must be equal, unlike where it must be unlike"
    return "\n".join(lines) + "\n"
