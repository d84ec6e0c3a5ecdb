"""Which answers to a frame will be the same for ever: it is then put aside, and not sent again."""

from __future__ import annotations

from holter.node.envelope import field_of
from holter.node.transport import Answer

_PERMANENT = (400, 413, 415, 422)
BARE_TRIES = 20
"""So often the same frame is sent before a 400 that explains nothing counts: with the back-off, some ten minutes."""


class Finality:
    """The collector's own 400 is a problem document. A bare one is its server's parser without memory, or a proxy's, and the frame may be sound."""

    def __init__(self) -> None:
        self._bare: tuple[bytes, int] = (b"", 0)

    def is_final(self, answer: Answer, data: bytes) -> bool:
        """Whether `answer`, to the frame `data`, will not change."""
        if answer.status != 400 or field_of(answer.body, "title") is not None:
            return answer.status in _PERMANENT
        frame, count = self._bare
        self._bare = (data, count + 1 if data == frame else 1)
        return self._bare[1] >= BARE_TRIES
