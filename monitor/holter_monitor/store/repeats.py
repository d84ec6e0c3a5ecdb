"""Whether a frame whose number is known is that frame come again, or another agent's that carries the same identity."""

from __future__ import annotations

from dataclasses import replace

from holter.errors import FrameError
from holter.frame import Frame, decode, encode


def is_repeat(stored: bytes, frame: Frame) -> bool:
    """An agent stamps a frame anew each time it sends it, with the clock and the run's id: they tell nothing.

    A frame without rows and events may have taken the place of one that the agent had to give up: then either may be here first.
    """
    if _is_hollow(frame):
        return True
    try:
        known = decode(stored)
    except FrameError:
        return True  # what lies on a damaged page can no longer say that it was another
    return _is_hollow(known) or _content(known) == _content(frame)


def _is_hollow(frame: Frame) -> bool:
    return not (frame.rows or frame.events)


def _content(frame: Frame) -> bytes:
    return encode(replace(frame, run="", sent_ns=0))
