"""What a training script holds: `holter.init` gives a `Run`, whose methods write into the rank's ring and return."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from holter.advice import NO_ADVICE, Advice
from holter.recorder import Recorder
from holter.ring import Phase, State
from holter.sections import Pause, Section
from holter.share import Share

if TYPE_CHECKING:
    from holter.agreement import Agreement

_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T")
_log = logging.getLogger("holter")
_WARNING_EVERY = 60.0
_LIFECYCLE = frozenset({"rank_finished", "rank_failed", "rank_terminated", "checkpoint", "eval", "resume"})


def _harmless(method: Callable[_P, _R]) -> Callable[_P, _R | None]:
    """The SDK's guard: what goes wrong inside is counted and told once a minute; the training goes on."""

    @functools.wraps(method)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _R | None:
        try:
            return method(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  never raise into a training loop
            args[0]._went_wrong(method.__name__, error)  # type: ignore[attr-defined]
            return None

    return guarded


class Run:
    """One rank's view of its run. No method raises, waits for the network or a device, or grows without bound.

    `flops_per_token` and `peak_flops` give `mfu`; without them it is absent.
    """

    def __init__(self, recorder: Recorder, mesh: tuple[Mapping[str, int], Mapping[str, int]] = ({}, {}), world_size: int = 1) -> None:
        self._recorder = recorder
        self.mesh = mesh
        """This rank's coordinate on each axis, and the axes' sizes, as `holter.init` was told."""
        self._world_size = world_size
        self._watch: Any = None
        self._agreement: Agreement | None = None
        self._agrees = True
        self._pid = os.getpid()
        self._sections: dict[str, Section] = {}
        self._advice = self._told = NO_ADVICE
        self._advice_version = 0
        self._warned_at = -_WARNING_EVERY
        self._last_event_step: int | None = None
        self._finished = False
        self._names_batches = recorder.rank == 0
        self._naming: Share | None = None
        self.step = recorder.step
        _live.add(self)

    # -- recording -----------------------------------------------------------------------------------------------------------

    step: Callable[..., None]
    """`run.step(step, loss=..., grad_norm=..., lr=..., tokens=..., any_other=...)`: one row of this rank.

    Values are floats, integers, numpy scalars or tensors of one element; a tensor on a GPU is copied without a synchronisation and its
    row completed at a later step. A value that is no number is left out and counted. Costs a few microseconds.
    """

    def batches(self, loader: Iterable[_T]) -> Iterator[_T]:
        """Iterate over `loader` and record the time spent waiting for it as `data_wait_seconds` of the next step; rank 0 also which batch it was
        (`batch_hash`), so that a resume that repeats or skips data is seen."""
        clock = time.monotonic_ns
        before = clock()
        for batch in loader:
            self._waited(clock() - before, batch)
            yield batch
            before = clock()

    @_harmless
    def _waited(self, nanoseconds: int, batch: object) -> None:
        self._recorder.waited(nanoseconds)
        if self._watch is not None:
            self._watch.batch(batch)
        if self._names_batches and not self._recorder.is_off:
            self._name(batch)

    def _name(self, batch: object) -> None:
        """Note the step's batch, or that of several that are accumulated. What cannot be read, or costs too much of a step, is not tried again."""
        began = time.monotonic_ns()
        try:
            from holter import batch_hash

            code = batch_hash.of(batch)
            if code is not None:
                before = self._recorder.noted("batch_hash")
                self._recorder.note("batch_hash", batch_hash.combined(None if before is None else int(before), code))
                self._naming = self._naming or Share()
                self._names_batches = self._naming.may_go_on(began, time.monotonic_ns())
                return
        except Exception as error:  # noqa: BLE001  never raise into a training loop
            _log.debug("the batches are not named: %s", error)
        self._names_batches = False

    @_harmless
    def _enter(self, phase: Phase) -> None:
        self._recorder.enter(phase)

    def section(self, name: str, *, communication: bool = False) -> AbstractContextManager[object]:
        """Time a part of the step as `section_<name>_seconds`. Sections that are not communication add up to `compute_seconds`."""
        try:
            found = self._sections.get(name)
            if found is None:
                found = self._sections[name] = Section(self._recorder, str(name), is_communication=communication)
            return found
        except Exception as error:  # noqa: BLE001  never raise into a training loop
            self._went_wrong("section", error)
            return nullcontext()

    def checkpoint(self, path: object = None, step: int | None = None, *, seconds: float | None = None) -> AbstractContextManager[object]:
        """Declare a checkpoint. As a context manager around the saving it also tells how long it took, and that a pause is expected."""
        try:
            attrs = {"path": str(path)} if path is not None else {}
            self.event("checkpoint", step=step, **attrs, **({"seconds": seconds} if seconds is not None else {}))
            self._enter(Phase.CHECKPOINT)
            self._advice = replace(self._advice, checkpoint=False)  # heeded: `if run.advice.checkpoint:` must not save at every step
            return Pause(self, Phase.CHECKPOINT, "checkpoint", {"step": step, **attrs})
        except Exception as error:  # noqa: BLE001  never raise into a training loop
            self._went_wrong("checkpoint", error)
            return nullcontext()

    def evaluation(self, step: int | None = None, metrics: Mapping[str, object] | None = None) -> AbstractContextManager[object]:
        """Declare an evaluation and its results. As a context manager around the evaluation it also tells that a pause is expected."""
        try:
            attrs = {"metrics": dict(metrics)} if metrics else {}
            self.event("eval", step=step, **attrs)
            self._enter(Phase.EVALUATION)
            return Pause(self, Phase.EVALUATION, "eval", {"step": step, **attrs})
        except Exception as error:  # noqa: BLE001  never raise into a training loop
            self._went_wrong("evaluation", error)
            return nullcontext()

    @_harmless
    def event(self, word: str, /, *, step: int | None = None, **attrs: object) -> None:
        """Put `word` on the record. `resume`, `batch_size_change`, `seq_len_change`, `data_stage_change`, `lr_change` also excuse what they
        explain. `attrs` are JSON values; `step` defaults to the last one recorded."""
        self._recorder.event(str(word)[:200], step=step, attrs=attrs, lifecycle=word in _LIFECYCLE)

    @_harmless
    def watch(self, model: object, optimizer: object = None, **options: object) -> None:
        """Record parallel-consistency fingerprints of the model's parameters and optimizer states; see `holter.parallel`."""
        from holter import parallel

        self._watch = parallel.watch(self, model, optimizer, **options)

    @_harmless
    def batch(self, batch: object, position: object = None) -> None:
        """Tell a watched run the batch that is trained on next, and where the dataloader stands: ranks of one tensor-parallel group must
        see the same, data-parallel ranks different ones. `run.batches` tells the batch by itself. Costs an assignment."""
        if self._watch is not None:
            self._watch.batch(batch, position)

    # -- reading -------------------------------------------------------------------------------------------------------------

    @property
    def advice(self) -> Advice:
        """What the operator asks of this training; the empty advice unless the collector allows reactions."""
        try:
            version = self._recorder.advice_version()
            if version != self._advice_version:
                self._advice_version, words = self._recorder.advice()
                told = Advice.of(words)
                if told != self._told:  # a new node agent tells again what the last one told
                    self._advice = self._told = told
        except Exception as error:  # noqa: BLE001  never raise into a training loop
            self._went_wrong("advice", error)
        return self._advice

    def agreed_advice(self, *, every: int = 20) -> Advice:
        """The advice that all ranks obey at this very step; the empty one at all other steps. Each advice is given once.

        For loops of several ranks, where one that stops alone leaves the others in a collective. Every rank must call it once a step, with
        the same `every`: each `every`-th call starts an all-reduce of 40 bytes between the CPUs of all ranks (`torch.distributed`, a gloo
        group made at the first of them unless there is one), whose answer is taken `every` calls later, so that nobody waits for it. A run
        of one rank has its advice at once.
        """
        if not self._agrees:
            return NO_ADVICE
        try:
            if self._agreement is None:
                from holter.agreement import Agreement

                self._agreement = Agreement(self._world_size, every)
            _ = self.advice  # heard anew
            return self._agreement.next(self._told)
        except Exception as error:  # noqa: BLE001  never raise into a training loop
            self._agrees = False  # not tried again: a group that fails once fails its ranks at different steps
            self._went_wrong("agreed_advice", error)
            return NO_ADVICE

    @property
    def last_step(self) -> int:
        """The last step recorded; -1 before the first."""
        return self._recorder.last_step

    @property
    def is_off(self) -> bool:
        """Whether nothing is recorded."""
        return self._recorder.is_off

    @property
    def rank(self) -> int:
        return self._recorder.rank

    # -- the end -------------------------------------------------------------------------------------------------------------

    @_harmless
    def finish(self, status: str = "finished") -> None:
        """The training came to its end. Does not wait: the node agent ships what is left. Further calls do nothing."""
        if self._finished or os.getpid() != self._pid:
            return
        self._finished = True
        if self._watch is not None:
            self._watch.finish()
        self._recorder.event("rank_finished", step=None, attrs={"status": str(status)}, lifecycle=True)
        self._recorder.close(State.FINISHED)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.finish()
        else:
            self._failed(error)

    @_harmless
    def _failed(self, error: BaseException) -> None:
        if self._finished or os.getpid() != self._pid:
            return
        self._finished = True
        attrs = {"type": type(error).__name__, "message": str(error)[:2000], "last_steps": self._recorder.last_steps()}
        self._recorder.event("rank_failed", step=None, attrs=attrs, lifecycle=True)
        self._recorder.close(State.FAILED)

    @_harmless
    def _exited(self) -> None:
        """The interpreter ends and nobody called `finish`: with the exception that ended it, where there was one."""
        if self._finished or os.getpid() != self._pid:
            return
        # The interpreter keeps an uncaught exception here before it runs the exit functions; no hook of the user's has to be replaced.
        error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
        if isinstance(error, BaseException):
            self._failed(error)
            return
        self._finished = True
        self._recorder.close(State.EXITED)

    def _went_wrong(self, where: str, error: Exception) -> None:
        self._recorder.drop("internal_error")
        now = time.monotonic()
        if now - self._warned_at >= _WARNING_EVERY:
            self._warned_at = now
            _log.warning("run.%s could not record (%s: %s); the training is not affected", where, type(error).__name__, error)


_live: weakref.WeakSet[Run] = weakref.WeakSet()


@atexit.register
def _at_exit() -> None:
    for run in list(_live):
        run._exited()


def _after_fork_in_child() -> None:
    for run in list(_live):
        run._recorder.silence()
    _live.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
