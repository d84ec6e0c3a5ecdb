"""Data that a restart repeats or leaves out: batches and counters after a resume, held against those before it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from holter_monitor.findings import Finding, Severity
from holter_monitor.stream.steps import Step

IDENTITIES = ("batch_hash", "batch_id")
"""Metrics that name a step's batch: `run.batches` and the integrations log the first, a loop may log either."""
COUNTERS = ("data_position", "consumed_samples", "consumed_tokens", "consumed_train_samples")
"""Metrics that count the data taken so far, over restarts; the first that a run logs is its counter."""
EXCUSES = frozenset({"data_stage_change", "batch_size_change", "seq_len_change"})
NO_STEP = -(2**62)


@dataclass(slots=True)
class Resume:
    """A resume under judgement."""

    step: int
    reached: int
    """The last step before it."""
    attempt: str
    steps: list[int] = field(default_factory=list)
    batches: list[float] = field(default_factory=list)


@dataclass(kw_only=True)
class DataPosition:
    """A loader whose state was not saved starts again at its first batch, and nothing in the loss says so for days.

    Batches: the first four after a resume must be those that the steps of these numbers had before, where there were any, and otherwise none
    that was seen before at another step (unless the data had begun its round again anyhow). Counters: where the count should stand, within
    half a step. One rank speaks for all: the first that names its batches. Said once a resume.
    """

    kind: ClassVar[str] = "data_position"
    enough: int = 4
    """Batches in a row that must agree: two that look alike are chance, four are not."""
    kept: int = 2_048
    """Newest steps whose batches are remembered; as many again from the run's begin, where a loader without state starts."""
    identity: str = field(init=False, default="")
    rank: int = field(init=False, default=-1)
    first: deque[tuple[int, float]] = field(init=False, default_factory=deque)
    newest: deque[tuple[int, float]] = field(init=False, default_factory=deque)
    counter: str = field(init=False, default="")
    counts: deque[tuple[int, float]] = field(init=False, default_factory=lambda: deque(maxlen=64))
    begun_at: float = field(init=False, default=0.0)
    """What the counter said first."""
    resume: Resume | None = field(init=False, default=None)
    last: int = field(init=False, default=NO_STEP)

    def observe(self, step: Step) -> list[Finding] | None:
        if "restart" in step.words:
            self._forget()
        said: list[Finding] = []
        if "resume" in step.words and self.last != NO_STEP:
            self.resume = Resume(step.number, self.last, step.attempt)
            if EXCUSES & step.words:
                self._forget()
            else:
                said += self._count_after(step)
        self._count(step)
        said += self._batch(step)
        self.last = step.number
        return said or None

    def _forget(self) -> None:
        self.first.clear()
        self.newest.clear()
        self.counts.clear()
        self.resume = None

    # -- batches

    def _batch(self, step: Step) -> list[Finding]:
        value = self._identity_of(step)
        if value is None:
            return []
        if self.resume is None:
            self._keep(step.number, value)
            return []
        self.resume.steps.append(step.number)
        self.resume.batches.append(value)
        if len(self.resume.batches) < self.enough:
            return []
        resume, self.resume = self.resume, None
        finding = self._judged(resume)
        for kept in (self.first, self.newest):
            while kept and kept[-1][0] >= resume.step:
                kept.pop()
        for number, batch in zip(resume.steps, resume.batches, strict=True):
            self._keep(number, batch)
        return [finding] if finding else []

    def _identity_of(self, step: Step) -> float | None:
        """The batch of the rank that speaks; None where it says nothing."""
        if not self.identity:
            self.identity = next((name for name in IDENTITIES if step.column(name) is not None), "")
        column = step.column(self.identity) if self.identity else None
        if column is None:
            return None
        values, present = column
        known = present & np.isfinite(values)
        if self.rank < 0 and known.any():
            self.rank = int(step.ranks[known][0])
        mine = known & (step.ranks == self.rank)
        return float(values[mine][0]) if mine.any() else None

    def _keep(self, step: int, batch: float) -> None:
        (self.first if len(self.first) < self.kept else self.newest).append((step, batch))
        if len(self.newest) > self.kept:
            self.newest.popleft()

    def _judged(self, resume: Resume) -> Finding | None:
        """What the batches after a resume say; None where they are the right ones, or nothing can be told."""
        steps, batches = (np.array(column) for column in zip(*self.first, *self.newest, strict=True)) if self.first else (None, None)
        if steps is None or batches is None or len(set(resume.batches)) < 2:
            return None
        found = _places(batches, resume.batches)
        before = [int(steps[place]) for place in found]
        overlapped = dict(zip(steps.tolist(), batches.tolist(), strict=True))
        compared = [(overlapped[step], batch) for step, batch in zip(resume.steps, resume.batches, strict=True) if step in overlapped]
        if resume.step in before or (compared and all(old == new for old, new in compared)):
            return None
        if before:
            was = max(before)
            if was < resume.step and self._is_cycle(steps, batches, resume.step, was):
                return None
            return self._moved(resume, was)
        if len(compared) < self.enough:
            return None
        return self._said(
            resume,
            "other",
            Severity.INFO,
            f"the batches after the resume at step {resume.step} are not those that these steps had before, nor any other that is remembered: "
            "the order of the data was drawn anew, or data was left out (declare that with data_stage_change)",
            {"compared": len(compared)},
        )

    def _is_cycle(self, steps: NDArray[np.float64], batches: NDArray[np.float64], at: int, was: int) -> bool:
        """Whether the data went round by itself: what stood before the old place stands before the new one too. Where the batches before the new
        place have no names (a loop of short steps stops naming them) that cannot be told, and so nothing is."""
        if was > steps[0] and at - steps[steps < at][-1] > 2 * np.median(np.diff(steps)):
            return True
        before_new, before_old = batches[steps < at][-self.enough :], batches[steps < was][-self.enough :]
        return len(before_old) == self.enough and bool((before_new == before_old).all())

    def _moved(self, resume: Resume, was: int) -> Finding:
        by = resume.step - was
        word, again = ("repeated", "trained on again") if by > 0 else ("skipped", "left out")
        start = " (the first batches of the run: the loader's state was not restored)" if self.first and was == self.first[0][0] else ""
        return self._said(
            resume,
            word,
            Severity.WARNING,
            f"after the resume at step {resume.step} the data goes on where it stood at step {was}{start}: {abs(by)} steps of data are {again}",
            {"position_step": was, "steps_of_data": by},
        )

    # -- counters

    def _count(self, step: Step) -> None:
        if not self.counter:
            self.counter = next((name for name in COUNTERS if step.column(name) is not None), "")
        value = step.mean(self.counter) if self.counter else None
        if value is None or not np.isfinite(value):
            return
        if not self.counts:
            self.begun_at = value
        elif self.counts[-1][0] >= step.number or self.counts[-1][1] > value:
            self.counts.clear()
        self.counts.append((step.number, value))

    def _count_after(self, step: Step) -> list[Finding]:
        """The count at the resumed step against what it was at that step, or would have become."""
        value = step.mean(self.counter) if self.counter else None
        if value is None or not np.isfinite(value) or len(self.counts) < self.enough or self.resume is None:
            return []
        steps, counts = (np.array(column) for column in zip(*self.counts, strict=True))
        pace = float(np.median(np.diff(counts) / np.diff(steps)))
        if pace <= 0 or step.number < steps[0] or step.number > steps[-1] + 1:
            return []
        off = (value - (float(np.interp(step.number, steps, counts)) + pace * max(0, step.number - int(steps[-1])))) / pace
        if abs(off) <= 0.5:
            return []
        is_anew = value <= self.begun_at + pace
        word = "repeated" if off < 0 else "skipped"
        return [
            self._said(
                self.resume,
                f"{self.counter} {word}",
                Severity.INFO if is_anew else Severity.WARNING,
                f"{self.counter} is {value:,.0f} after the resume at step {step.number}, {abs(off):,.4g} steps of data "
                f"{'less' if off < 0 else 'more'} than it was: "
                + ("the count began anew, and with it perhaps the data" if is_anew else f"data is {word}"),
                {"counter": self.counter, "value": value, "steps_of_data": -off},
            )
        ]

    def _said(self, resume: Resume, scope: str, severity: Severity, text: str, evidence: dict[str, object]) -> Finding:
        seen = resume.steps[-1] if resume.steps else resume.step
        return Finding(
            kind=self.kind,
            severity=severity,
            scope=scope,
            onset_step=resume.step,
            detected_step=seen,
            end_step=seen,
            attempt=resume.attempt,
            summary=text,
            evidence={"resume_step": resume.step, "reached_step": resume.reached, "window": [max(0, resume.step - 50), seen], **evidence},
        )


def _places(batches: NDArray[np.float64], wanted: list[float]) -> NDArray[Any]:
    """Where `wanted` stands in `batches`, in a row."""
    last = len(batches) - len(wanted) + 1
    if last <= 0:
        return np.zeros(0, np.int64)
    fits = np.ones(last, bool)
    for offset, value in enumerate(wanted):
        fits &= batches[offset : offset + last] == value
    return np.flatnonzero(fits)
