"""A log of an earlier run as the reference that a scan holds its runs against."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from holter_monitor import reference
from holter_monitor.imports.records import LogError
from holter_monitor.offline.scan import opened, steps
from holter_monitor.reference import Pacing, Reference

if TYPE_CHECKING:
    from holter_monitor.offline.scan import ScanSettings
    from holter_monitor.stream.steps import Step


class NoReferenceError(ValueError):
    """The log that `--reference` names holds no run to be measured against; the sentence says why."""


def read(place: str, settings: ScanSettings) -> Reference:
    """The reference in `place`, a log or `LOG#RUN` where it holds several runs. Raises `NoReferenceError`."""
    path, _, wanted = place.partition("#")
    runs: dict[str, list[Step]] = {}
    for log in opened([Path(path)], settings):
        try:
            if isinstance(log, LogError):
                raise log
            for run, step in steps(*log, settings):
                runs.setdefault(run, []).append(step)
        except LogError as error:
            raise NoReferenceError(str(error)) from error
    if wanted not in runs and len(runs) > 1:
        names = ", ".join(f"{path}#{run}" for run in sorted(runs))
        raise NoReferenceError(f"--reference {place}: the log holds several runs; name one of {names}")
    of_run = runs.get(wanted) or next(iter(runs.values()), [])
    found = _reduced(wanted or Path(path).name, of_run)
    if found is None:
        raise NoReferenceError(
            f"--reference {place}: {len(of_run)} records with a loss or a pace are too few; at least {2 * reference.CELL_RECORDS} are needed"
        )
    return found


def _reduced(name: str, of_run: list[Step]) -> Reference | None:
    kept = [(step, loss) for step in of_run if (loss := step.mean("loss")) is not None and isfinite(loss)]
    consumed = [step.mean("consumed_tokens") for step, _ in kept]
    own = [step.mean("tokens") for step, _ in kept]
    if all(value is not None for value in consumed):
        positions, unit = np.array(consumed, float), "tokens"
    elif all(value is not None for value in own):
        positions, unit = np.cumsum(np.array(own, float)), "tokens"
    else:
        positions, unit = np.array([step.number for step, _ in kept], float), "step"
    return reference.build(name, positions, [loss for _, loss in kept], unit=unit, pacing=_pacing(of_run))


def _pacing(of_run: list[Step]) -> Pacing | None:
    for basis in reference.PACES:
        logged = [(step.number, value) for step in of_run if (value := step.mean(basis)) is not None]
        if logged:
            return reference.pacing(basis, *zip(*logged, strict=True))
    return None
