"""Whether this node holds the whole dataset, as the manifest has it: what a spare node must, before it is needed.

The manifest is JSON: `{"written": unix seconds, "files": {path: [bytes, digest]}}`. A digest is of the file's length, its first, middle and last 64 KiB: a
whole read of 24 TB would take the hours that a spare node is there to save.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from holter_monitor.preflight.check import Check, shown

PIECE = 64 << 10
NAMED = 3
COLD_SECONDS = 2.0
"""Three pieces of 64 KiB come from a disk in milliseconds, from a cold tier in seconds."""


@dataclass(frozen=True, slots=True)
class Manifest:
    written: float
    files: dict[str, tuple[int, str]]

    @property
    def bytes(self) -> int:
        return sum(length for length, _ in self.files.values())


def write(folder: Path, file: Path) -> Manifest:
    """The manifest of what is in `folder` now. Raises `ValueError` for an empty folder, `OSError`."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.resolve() != file.resolve())
    if not names:
        raise ValueError(f"{folder}: no files to make a manifest of")
    manifest = Manifest(time.time(), {name: (os.path.getsize(folder / name), _digest(folder / name)) for name in names})
    temporary = file.with_name(file.name + ".part")
    temporary.write_text(json.dumps({"written": manifest.written, "files": manifest.files}))
    temporary.replace(file)
    return manifest


def read(file: Path) -> Manifest:
    """Raises `ValueError` for what is no manifest, `OSError`."""
    try:
        content = json.loads(file.read_text())
        files = {str(name): (int(length), str(digest)) for name, (length, digest) in content["files"].items()}
        return Manifest(float(content["written"]), files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: no manifest ({error}); make one with holter preflight --dataset DIR --write-manifest FILE") from error


def look(folder: Path, manifest: Manifest, bytes_per_second: float = 0.0, fresh_seconds: float = 0.0) -> Iterator[Check]:
    """`bytes_per_second`: at which what is missing could be copied; tells how long a restart on this node would wait. `fresh_seconds`: how old the
    manifest may be."""
    what, whole = f"dataset {folder}", manifest.bytes
    missing, changed, held, slowest = [], [], 0, (0.0, "")
    for name, (length, digest) in manifest.files.items():
        began = time.monotonic()
        there = _length(folder / name)
        if there == length and _digest(folder / name) == digest:
            held += length
        elif there is None:
            missing.append(name)
        else:
            changed.append(name)
        slowest = max(slowest, (time.monotonic() - began, name))
    measured = {"held_bytes": float(held), "whole_bytes": float(whole), "slowest_read_seconds": slowest[0]}
    if missing or changed:
        yield _lacking(what, manifest, measured, {"missing": missing, "not as in the manifest": changed}, bytes_per_second)
    else:
        yield Check(what=what, mark="ok", found=f"whole: {len(manifest.files)} files, {shown(whole)}", measured=measured)
    yield from _aged(what, manifest, fresh_seconds)
    yield from _grown(what, folder, manifest)
    if slowest[0] > COLD_SECONDS:
        found = f"{slowest[1]} took {slowest[0]:.1f} s to read a little of"
        yield Check(
            what=what,
            mark="note",
            found=found,
            remedy="look whether it lies on a cold tier: a loader will wait there as long",
            measured=measured,
        )


def _lacking(what: str, manifest: Manifest, measured: dict[str, float], lacking: dict[str, list[str]], bytes_per_second: float) -> Check:
    rest = manifest.bytes - measured["held_bytes"]
    wait = f"; a restart on this node would wait {_hours(rest / bytes_per_second)} for it" if bytes_per_second else ""
    parts = [f"{len(names)} {word} ({_named(names)})" for word, names in lacking.items() if names]
    share = min(99, int(100 * measured["held_bytes"] / manifest.bytes)) if manifest.bytes else 0
    found = f"{share} % of it ({shown(rest)} to come){wait}: {', '.join(parts)}"
    return Check(what=what, mark="fail", found=found, remedy="copy the rest before this node is needed", measured=measured)


def _aged(what: str, manifest: Manifest, fresh_seconds: float) -> Iterator[Check]:
    age = time.time() - manifest.written
    if fresh_seconds and age > fresh_seconds:
        found = f"the manifest is {_hours(age)} old, {_hours(fresh_seconds)} are allowed: what was added since is not looked for"
        yield Check(
            what=what, mark="fail", found=found, remedy="write a new one on a node that trains", measured={"manifest_age_seconds": age}
        )


def _grown(what: str, folder: Path, manifest: Manifest) -> Iterator[Check]:
    extra = sorted(
        name for path in folder.rglob("*") if path.is_file() and (name := path.relative_to(folder).as_posix()) not in manifest.files
    )
    if extra:
        found = f"{len(extra)} files that the manifest does not have ({_named(extra)})"
        yield Check(what=what, mark="note", found=found, remedy="write a new manifest if the dataset has grown, else clear them away")


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds:.0f} s"


def _named(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _length(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _digest(path: Path) -> str:
    length = path.stat().st_size
    digest = hashlib.blake2b(str(length).encode(), digest_size=16)
    with path.open("rb") as file:
        for offset in sorted({0, max(0, length // 2 - PIECE // 2), max(0, length - PIECE)}):
            file.seek(offset)
            digest.update(file.read(PIECE))
    return digest.hexdigest()
