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


def look(folder: Path, manifest: Manifest, bytes_per_second: float = 0.0) -> Iterator[Check]:
    """`bytes_per_second`: at which what is missing could be copied; tells how long a restart on this node would wait."""
    what, whole = f"dataset {folder}", manifest.bytes
    missing, changed, held = [], [], 0
    for name, (length, digest) in manifest.files.items():
        there = _length(folder / name)
        if there == length and _digest(folder / name) == digest:
            held += length
        elif there is None:
            missing.append(name)
        else:
            changed.append(name)
    measured = {"held_bytes": float(held), "whole_bytes": float(whole)}
    if not missing and not changed:
        yield Check(what=what, mark="ok", found=f"whole: {len(manifest.files)} files, {shown(whole)}", measured=measured)
        return
    wait = f"; a restart on this node would wait {_hours((whole - held) / bytes_per_second)} for it" if bytes_per_second else ""
    parts = [
        f"{len(found)} {word} ({_named(found)})" for found, word in ((missing, "missing"), (changed, "not as in the manifest")) if found
    ]
    share = min(99, int(100 * held / whole)) if whole else 0
    found = f"{share} % of it ({shown(whole - held)} to come){wait}: {', '.join(parts)}"
    yield Check(what=what, mark="fail", found=found, remedy="copy the rest before this node is needed", measured=measured)


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
