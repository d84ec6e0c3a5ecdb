"""What a full spool gives up: the records of one class, with a declaration of what went with them in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from holter.frame import Frame, encode
from holter.node.envelope import header_of, hollow
from holter.node.records import Class, Record

REASON = "spool_full"


def losses(records: Sequence[Record], reason: str) -> dict[str, int]:
    """What is lost with `records`: their rows and events for `reason`, and what their frames had declared lost themselves."""
    total: dict[str, int] = {}
    for record in records:
        found = hollow(record.payload, reason)
        for key, count in (found[1] if found else {reason: record.rows + record.events}).items():
            total[key] = total.get(key, 0) + count
    return total


def thinned(records: Sequence[Record], worst: Class, spared: int) -> tuple[list[Record], dict[str, int]]:
    """`records` without those of class `worst`, and the losses of those that are no frames, which nothing in their place declares.

    One declaration for each life of an agent stands where the first of its records stood, under that one's identity. A frame that a collector
    may already have, the oldest, must not be declared lost as well: `spared` is its number.
    """
    kept: list[Record] = []
    places: dict[str, int] = {}
    undeclared: list[Record] = []
    for record in records:
        if record.kind != worst or record.number == spared:
            kept.append(record)
            continue
        found = hollow(record.payload, REASON)
        if found is None:
            undeclared.append(record)
        elif found[1]:
            declaration = replace(record, kind=Class.EVENTS, rows=0, events=0, payload=found[0])
            boot = str(header_of(record.payload)[0]["boot"])
            if boot in places:
                kept[places[boot]] = _joined(kept[places[boot]], declaration)
            else:
                places[boot] = len(kept)
                kept.append(declaration)
    return kept, losses(undeclared, REASON)


def _joined(first: Record, second: Record) -> Record:
    """Both declarations in one, with the later note: it says how far the rings were read, which the earlier cannot."""
    header = header_of(first.payload)[0]
    identity = {key: header[key] for key in ("run", "attempt", "node", "boot", "seq", "sent_ns")}
    return replace(first, payload=encode(Frame(**identity, dropped=losses([first, second], REASON))), note=second.note or first.note)
