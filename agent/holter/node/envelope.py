"""What the shipper reads in an answer and writes on a frame before it goes: the run's id, the time, and several frames for one."""

from __future__ import annotations

import json
import time
import zlib
from typing import Any

import numpy as np

from holter.frame import Column, Frame, encode


def field_of(body: bytes, name: str) -> Any:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found.get(name) if isinstance(found, dict) else None


def header_of(data: bytes) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(data[4:8], "little")
    return json.loads(data[8 : 8 + length]), 8 + length


def seq_of(data: bytes) -> int:
    """A frame's `seq`, read from its header alone."""
    return int(header_of(data)[0]["seq"])


def stamp(data: bytes, run_id: str) -> bytes | None:
    """The frame with the run's id and the time of sending: a spooled frame does not know the id yet. None if it is damaged."""
    try:
        header, start = header_of(data)
    except (ValueError, KeyError):
        return None
    header["run"], header["sent_ns"] = run_id, time.time_ns()
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    body = b"".join((data[:4], len(text).to_bytes(4, "little"), text, data[start:-4]))
    return body + zlib.crc32(body).to_bytes(4, "little")


def hollow(data: bytes, reason: str) -> tuple[bytes, dict[str, int]] | None:
    """The frame without its rows and events, which are counted as lost for `reason` beside what it had declared lost itself; and those counts.

    It keeps the frame's identity, so it takes the frame's place: whichever of the two a collector stored, the sums are right, and a repeat is
    known as one. None if the frame is damaged.
    """
    try:
        header, _ = header_of(data)
        lost = int(header["rows"]) + len(header["events"])
        dropped = {str(key): int(count) for key, count in header["dropped"].items()}
        if lost:
            dropped[reason] = dropped.get(reason, 0) + lost
        identity = {key: header[key] for key in ("run", "attempt", "node", "boot", "seq", "sent_ns")}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return encode(Frame(**identity, dropped=dropped)), dropped


def parts(frame: Frame) -> list[Frame]:
    """The rows and events of a frame in two halves, and its counts of losses by themselves: a row that is refused takes none with it."""
    middle, cut = (frame.rows + 1) // 2, len(frame.events) // 2
    nothing = slice(0, 0)
    cuts = ((slice(0, middle), slice(0, cut)), (slice(middle, None), slice(cut, None)), (nothing, nothing))
    found = []
    for index, (rows, events) in enumerate(cuts):
        metrics = {
            name: Column(column.values[rows], None if column.present is None else column.present[rows])
            for name, column in frame.metrics.items()
        }
        found.append(
            Frame(
                run=frame.run,
                attempt=frame.attempt,
                node=frame.node,
                boot=f"{frame.boot}/{frame.seq}",
                seq=index,
                sent_ns=frame.sent_ns,
                rank=np.asarray(frame.rank[rows]),
                step=np.asarray(frame.step[rows]),
                time_ns=np.asarray(frame.time_ns[rows]),
                metrics=metrics,
                events=frame.events[events],
                dropped=frame.dropped if index == 2 else {},
            )
        )
    return [part for part in found if part.rows or part.events or part.dropped]
