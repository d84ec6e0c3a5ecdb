"""What logging costs a real training: the time spent in the call over the time of the step, and the interleaved A/B beside it.

    python benchmarks/training_overhead.py [--pairs 10] [--steps 60] [--only holter,tensorboard]

A small transformer block on CPU, one thread, a step of about 25 ms, 20 scalars a step. Each pair trains the same steps with and without the
tool, in turns that change their order; the ratio's interval is a bootstrap over pairs. The A/B sees what the call's own time cannot (a thread
that takes the interpreter, a process that takes the cores); it resolves a per cent at best. The call's share resolves a thousandth of that.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from hot_path import values_of
from peers import PEERS, Log

NO_LOG = "(none)"


def training() -> Callable[[], float]:
    """One step of a small transformer; the answer is its loss."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    layer = torch.nn.TransformerEncoderLayer(128, 4, 512, batch_first=True, dropout=0.0)
    head = torch.nn.Linear(128, 128)
    optimizer = torch.optim.AdamW([*layer.parameters(), *head.parameters()])
    batch = torch.randn(12, 64, 128)

    def step() -> float:
        optimizer.zero_grad()
        loss = (head(layer(batch)) - batch).pow(2).mean()
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


def block(train: Callable[[], float], log: Log | None, steps: int, first: int) -> tuple[float, float]:
    """`(seconds of the block, seconds of it inside the calls)`."""
    inside = 0
    before = time.perf_counter()
    for number in range(first, first + steps):
        values = values_of(train())
        if log is not None:
            called = time.perf_counter_ns()
            log(number, values)
            inside += time.perf_counter_ns() - called
    return time.perf_counter() - before, inside / 1e9


def bootstrap(ratios: np.ndarray, draws: int = 4000) -> tuple[float, float, float]:
    """`(median, 2.5 %, 97.5 %)` of the median over pairs."""
    dice = np.random.default_rng(0)
    medians = np.median(dice.choice(ratios, (draws, len(ratios))), axis=1)
    return float(np.median(ratios)), *(float(edge) for edge in np.percentile(medians, [2.5, 97.5]))


def measure(name: str, log: Log, pairs: int, steps: int) -> str:
    train = training()
    block(train, log, 10, 0)
    ratios, shares, lengths = [], [], []
    for pair in range(pairs):
        first = 10 + pair * steps
        order = [log, None] if pair % 2 else [None, log]
        found = {which is None: block(train, which, steps, first) for which in order}
        (plain, _), (logged, inside) = found[True], found[False]
        ratios.append(logged / plain)
        shares.append(inside / (logged - inside))
        lengths.append(plain / steps)
    middle, low, high = bootstrap(np.array(ratios))
    share, low_share, high_share = bootstrap(np.array(shares))
    return (
        f"| {name:<20} | {np.median(lengths) * 1e3:7.1f} | {1 + share:8.5f} [{1 + low_share:.5f}, {1 + high_share:.5f}] "
        f"| {middle:6.3f} [{low:.3f}, {high:.3f}] |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--only", default="(empty function),holter,trackio,wandb offline,mlflow async,tensorboard")
    arguments = parser.parse_args()
    print(f"| {'tool':<20} | step ms | 1 + call / step [95 %]      | A/B ratio [95 %]     |")
    print(f"|{'-' * 22}|--------:|----------------------------:|---------------------:|")
    for name in arguments.only.split(","):
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
            try:
                log = stack.enter_context(PEERS[name](folder))
            except Exception as error:
                print(f"| {name:<20} | left out: {type(error).__name__}: {str(error).splitlines()[0][:60]}")
                continue
            print(measure(name, log, arguments.pairs, arguments.steps), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
