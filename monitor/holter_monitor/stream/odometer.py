"""How far a run has come on the axis along which it is held against another: tokens consumed, or steps."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np

from holter_monitor.stream.steps import Step

MARKS = 1024


@dataclass
class Odometer:
    """Going back to an earlier step gives back its tokens. Of the way, so many marks are kept that an evaluation of an older step finds its place."""

    tokens: float = 0.0
    tokens_by_step: float = 0.0
    last_step: int | None = None
    steps: list[int] = field(default_factory=list)
    passed: list[float] = field(default_factory=list)
    """Tokens at `steps`."""
    stride: int = 1

    def take(self, step: Step, unit: str) -> float:
        """Where the run stands after this step, in `unit`."""
        if unit == "step":
            self.last_step = step.number
            return float(step.number)
        consumed = step.mean("consumed_tokens")
        if consumed is not None:
            self.tokens = consumed
        else:
            column = step.column("tokens")
            own = float(column[0][column[1] & np.isfinite(column[0])].sum()) if column is not None else 0.0
            if self.last_step is not None and step.number <= self.last_step:
                self.tokens -= self.tokens_by_step * (self.last_step - step.number + 1)
            self.tokens += own
            self.tokens_by_step = own or self.tokens_by_step
        self.last_step = step.number
        self._mark(step.number)
        return self.tokens

    def at(self, step: int, unit: str) -> float:
        """Where the run stood at `step`; where it stands, for a step that it has not reached or that is not remembered."""
        if unit == "step":
            return float(step)
        if not self.steps or step >= self.steps[-1]:
            return self.tokens
        return float(np.interp(step, self.steps, self.passed))

    def _mark(self, step: int) -> None:
        if self.steps and step <= self.steps[-1]:
            kept = bisect_right(self.steps, step - 1)
            del self.steps[kept:], self.passed[kept:]
        if self.steps and step - self.steps[-1] < self.stride:
            return
        self.steps.append(step)
        self.passed.append(self.tokens)
        if len(self.steps) > MARKS:
            self.steps, self.passed = self.steps[::2], self.passed[::2]
            self.stride *= 2
