"""Microseconds of logging 20 scalars, on the calling thread: in a tight loop, and after a real training step, which is the honest figure.

    python benchmarks/hot_path.py [--steps 400] [--rounds 2] [--only holter,tensorboard]

After a training step the caches hold the training; a tight loop hides that. Each tool gets blocks of consecutive steps, as in a real run,
and the blocks of all tools take turns, so that a busy minute of the machine hits all alike. Torch, one thread, no GPU.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from peers import PEERS, Log

SCALARS = 20
SETTLE = 10
"""Steps of a block that are not counted: the tool's code comes back into reach of the caches as in a run of its own."""


def training_step() -> object:
    """One step of a small real training; the answer is its loss."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = torch.nn.Sequential(torch.nn.Linear(256, 1024), torch.nn.GELU(), torch.nn.Linear(1024, 256))
    optimizer = torch.optim.AdamW(model.parameters())
    batch = torch.randn(128, 256)

    def step() -> float:
        optimizer.zero_grad()
        loss = (model(batch) - batch).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def timed(log: Log, step: int, values: dict[str, float]) -> int:
    before = time.perf_counter_ns()
    log(step, values)
    return time.perf_counter_ns() - before


def values_of(loss: float) -> dict[str, float]:
    return {name: loss + index for index, name in enumerate(NAMES)}


NAMES = [sys.intern(f"metric_{index}") for index in range(SCALARS)]


def measure(logs: dict[str, Log], steps: int, rounds: int) -> tuple[dict[str, np.ndarray], float]:
    """Cold microseconds by tool, and the length of a training step in milliseconds."""
    train = training_step()
    cold: dict[str, list[int]] = {name: [] for name in logs}
    lengths = []
    number = 0
    for _ in range(rounds):
        for name, log in logs.items():
            for index in range(steps // rounds + SETTLE):
                number += 1
                before = time.perf_counter()
                loss = train()
                lengths.append(time.perf_counter() - before)
                nanoseconds = timed(log, number, values_of(loss))
                if index >= SETTLE:
                    cold[name].append(nanoseconds)
    return {name: np.array(found) / 1e3 for name, found in cold.items()}, float(np.median(lengths)) * 1e3


def hot(log: Log, calls: int) -> np.ndarray:
    values = values_of(1.5)
    budget = time.perf_counter() + 2.0  # a tool of ten milliseconds a call must not hold the table
    found = []
    for step in range(calls):
        found.append(timed(log, 10_000_000 + step, values))
        if time.perf_counter() > budget:
            break
    return np.array(found) / 1e3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    wanted = [name for name in arguments.only.split(",") if name]
    logs: dict[str, Log] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        for name, peer in PEERS.items():
            if wanted and name not in wanted:
                continue
            place = folder / name.replace(" ", "-")
            place.mkdir()
            try:
                logs[name] = stack.enter_context(peer(place))
            except Exception as error:
                print(f"left out: {name} ({type(error).__name__}: {str(error).splitlines()[0]})")
        cold, length = measure(logs, arguments.steps, arguments.rounds)
        table(logs, cold, length)
    return 0


def table(logs: dict[str, Log], cold: dict[str, np.ndarray], length: float) -> None:
    print(
        f"\n{platform.processor() or platform.machine()}, Python {platform.python_version()}, torch {importlib.metadata.version('torch')}"
    )
    print(f"{SCALARS} scalars a call; cold: {len(next(iter(cold.values())))} calls each after a training step of {length:.1f} ms\n")
    print(f"| {'tool':<20} | cold p50 us | cold p99 us | hot p50 us | hot p99 us | share of a 20 ms step |")
    print(f"|{'-' * 22}|------------:|------------:|-----------:|-----------:|----------------------:|")
    for name, log in logs.items():
        quick = hot(log, 20_000)
        middle, far = np.percentile(cold[name], [50, 99])
        hot_middle, hot_far = np.percentile(quick, [50, 99])
        share = np.mean(cold[name]) / 20_000
        print(f"| {name:<20} | {middle:11.1f} | {far:11.1f} | {hot_middle:10.2f} | {hot_far:10.2f} | {share:20.3%}  |")


if __name__ == "__main__":
    sys.exit(main())
