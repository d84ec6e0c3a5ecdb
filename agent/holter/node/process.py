"""Whether a rank's process lives, and how it ended when it does not."""

from __future__ import annotations

from typing import Any

from holter.node.reader import RingReader
from holter.ring import State, Word


def is_alive(pid: int, began: int) -> bool:
    """Whether the process that was `pid` at its start still runs. A zombie does not; a new process of the same number is another."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] not in ("Z", "X") and (began == 0 or int(fields[19]) == began)


def ending_of(ring: RingReader) -> tuple[str | None, dict[str, Any]]:
    """The event that tells how the rank of a ring ended; None when the rank told it itself."""
    state = ring.words[Word.STATE]
    if state in (State.FINISHED, State.FAILED):
        return None, {}
    if state == State.EXITED:
        return "rank_finished", {"status": "exited"}
    return "rank_lost", {"evidence": "the process is gone without a word"}
