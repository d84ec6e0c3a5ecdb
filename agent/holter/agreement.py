"""Advice that all ranks obey at the same step: what each has heard is put together by a small all-reduce, which the script asked for.

Ranks hear an operator's advice at different steps, and one that leaves the loop alone leaves the others in a collective. On every
`every`-th step all ranks start an all-reduce of 40 bytes on the CPU and go on; its answer is taken `every` steps later. All have the same
answer and take it at the same step, so all obey it there, and nobody waits: the steps between have passed the same ranks' gradients.
"""

from __future__ import annotations

import sys
import zlib
from typing import Any

from holter.advice import NO_ADVICE, Advice

_REMEMBERED = 64
"""Advices whose turns are known."""


class Agreement:
    """One rank's part. `next` must be called by every rank once a step, with the same `every`."""

    def __init__(self, world_size: int, every: int) -> None:
        self._world_size = world_size
        self._every = max(1, every)
        self._calls = 0
        self._group: Any = None
        self._asked: tuple[Any, Any, int] | None = None
        self._heard = NO_ADVICE
        self._turns: dict[int, list[int]] = {}

    def next(self, heard: Advice) -> Advice:
        """What is to be obeyed at this step, given what this rank has heard by now. Each advice is obeyed once."""
        distributed = _initialized()
        if (distributed.get_world_size() if distributed is not None else self._world_size) == 1:
            return self._obeyed(self._words(heard))
        self._calls += 1
        if self._calls % self._every:
            return NO_ADVICE
        if distributed is None:
            raise RuntimeError("there are several ranks, and no torch.distributed by which they could agree on a step")
        agreed = self._answer()
        self._ask(distributed, self._words(heard))
        return agreed

    # -- one rank's words --------------------------------------------------------------------------------------------------------

    def _words(self, heard: Advice) -> list[int]:
        """The advice as numbers of which the largest wins; zeros if it asks for nothing, or was obeyed before."""
        if heard is not self._heard:
            self._heard = heard
            if mark := _mark(heard):
                self._turn(mark)[0] += 1
        mark = _mark(heard)
        if not mark or self._turn(mark)[0] <= self._turn(mark)[1]:
            return [0] * 5
        rewind = -1 if heard.rewind_to is None else heard.rewind_to
        return [mark, int(heard.stop), int(heard.checkpoint), int(heard.skip_batch), rewind + 1]

    def _turn(self, mark: int) -> list[int]:
        """How often this rank has heard an advice, and how often it was obeyed: one heard late, after all have obeyed it, is not news."""
        if mark not in self._turns and len(self._turns) >= _REMEMBERED:
            del self._turns[next(iter(self._turns))]
        return self._turns.setdefault(mark, [0, 0])

    def _obeyed(self, words: list[int], own: int = 0) -> Advice:
        mark, stop, checkpoint, skip_batch, rewind = words
        for one in {mark, own} - {0}:
            self._turn(one)[1] += 1
        if not mark:
            return NO_ADVICE
        return Advice(
            stop=bool(stop),
            checkpoint=bool(checkpoint),
            skip_batch=bool(skip_batch),
            rewind_to=rewind - 1 if rewind else None,
            reason=self._heard.reason if _mark(self._heard) else "another rank has heard it",
        )

    # -- all ranks' words --------------------------------------------------------------------------------------------------------

    def _ask(self, distributed: Any, words: list[int]) -> None:
        torch = sys.modules["torch"]
        if self._group is None:
            self._group = _group(distributed)
        tensor = torch.tensor(words, dtype=torch.int64)
        work = distributed.all_reduce(tensor, op=distributed.ReduceOp.MAX, group=self._group, async_op=True)
        self._asked = (work, tensor, words[0])

    def _answer(self) -> Advice:
        if self._asked is None:
            return NO_ADVICE
        work, tensor, own = self._asked
        self._asked = None
        work.wait()
        return self._obeyed(tensor.tolist(), own)


def _mark(advice: Advice) -> int:
    """The same number on all ranks for the same advice; 0 for one that asks for nothing."""
    asks = advice.stop or advice.checkpoint or advice.skip_batch or advice.rewind_to is not None
    return zlib.crc32(repr(advice).encode()) + 1 if asks else 0


def _initialized() -> Any:
    """`torch.distributed`, if the script has imported and initialized it."""
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    return distributed if distributed is not None and distributed.is_available() and distributed.is_initialized() else None


def _group(distributed: Any) -> Any:
    """All ranks, on the CPU: a reduction on the device would have to be waited for there, among the training's own.

    The training's own group where that has a CPU's backend, else one made here, by all ranks, once.
    """
    if "gloo" in str(distributed.get_backend_config()):
        return distributed.group.WORLD
    return distributed.new_group(backend="gloo")
