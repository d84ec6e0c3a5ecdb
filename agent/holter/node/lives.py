"""What a spool's folder says of itself: whose frames lie in it, and whether the agent before us ended with the node.

What a power loss takes with it nobody can count: that it happened is told.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from holter.frame import Event, Frame

_LABEL = "life.json"
_KERNEL = Path("/proc/sys/kernel/random/boot_id")


def _kernel() -> str:
    """This boot of the node; empty where the system does not say."""
    try:
        return _KERNEL.read_text().strip()
    except OSError:
        return ""


def begin(folder: Path, attempt: str, node: str, boot: str) -> None:
    """An agent reads rings of a run whose spool is `folder`: durable at once, so that a power loss leaves it behind. Raises `OSError`."""
    draft = folder / ".life.draft"
    with open(draft, "w", encoding="utf-8") as file:
        json.dump({"kernel": _kernel(), "attempt": attempt, "node": node, "boot": boot}, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / _LABEL)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def end(folder: Path) -> None:
    """Nothing of the run is left in rings, and what was spooled is synced."""
    with contextlib.suppress(OSError):
        (folder / _LABEL).unlink()


def cut_short(folder: Path) -> Frame | None:
    """The frame that tells of a life which ended with the node; None if there was none. However often it is told, it is the same frame."""
    try:
        life: dict[str, Any] = json.loads((folder / _LABEL).read_text(encoding="utf-8"))
        kernel, attempt, node, boot = (str(life[key]) for key in ("kernel", "attempt", "node", "boot"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not kernel or kernel == _kernel():
        return None
    text = "the node went down under the agent: what the rings held and what was spooled within the last second is lost, uncounted"
    event: Event = {"event": "node_restarted", "rank": None, "step": None, "time_ns": time.time_ns(), "attrs": {"boot": boot, "text": text}}
    return Frame("spooled", attempt, node, f"{boot}/end", 0, 0, events=[event])


def label(path: Path, text: str) -> None:
    """Write whose frames lie in the folder, all of it or nothing: frames below a torn label would never be shipped. Raises `OSError`."""
    if not path.exists() or path.read_bytes() != text.encode():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_suffix(".draft")
        draft.write_bytes(text.encode())
        draft.replace(path)
