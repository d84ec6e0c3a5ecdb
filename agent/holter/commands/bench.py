"""Measures what `run.step` costs on this machine: called again and again, and called after work that has emptied the caches.

The second figure is the honest one: in a training the call finds the caches full of the model's work. The benchmark beside other tools,
after real training steps, is benchmarks/hot_path.py of the project.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable

COLD_BYTES = 64 << 20
"""More than the last-level cache of one core's share; touched between two calls."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scalars", type=int, default=20, help="metrics a call (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=300, help="calls with cold caches; a hundred times as many hot (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    import holter

    shared = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108  where rings live
    with tempfile.TemporaryDirectory(dir=shared, ignore_cleanup_errors=True) as folder:
        # The port of nobody: the node agent runs as in a training, and its collector is away.
        recorded = holter.init(project="bench", name="bench", url="http://127.0.0.1:9", directory=folder)
        names = [f"metric_{index}" for index in range(arguments.scalars)]
        found = {
            "cold": _figures(recorded.step, names, arguments.calls, _cooler()),
            "hot": _figures(recorded.step, names, arguments.calls * 100, lambda: None),
        }
        recorded.finish()
    if arguments.json:
        print(json.dumps({"scalars": arguments.scalars, "unit": "microseconds", **found}, indent=1))
        return 0
    print(f"run.step with {arguments.scalars} scalars, Python {platform.python_version()}, {platform.machine()}")
    for name, figures in found.items():
        print(f"  {name:<5} p50 {figures['p50']:6.2f} us   p99 {figures['p99']:6.2f} us   ({figures['calls']:.0f} calls)")
    print(f"  a step of 20 ms: {found['cold']['mean'] / 20_000:.4%} of it")
    return 0


def _cooler() -> Callable[[], None]:
    """Touches every cache line of a block that no cache holds."""
    block = bytearray(COLD_BYTES)

    def cool() -> None:
        block[::64] = bytes(COLD_BYTES // 64)

    return cool


def _figures(step: Callable[..., None], names: list[str], calls: int, between: Callable[[], None]) -> dict[str, float]:
    took = []
    for number in range(calls):
        values = dict.fromkeys(names, number * 0.5)
        between()
        before = time.perf_counter_ns()
        step(number, **values)
        took.append((time.perf_counter_ns() - before) / 1e3)
    cuts = statistics.quantiles(took, n=100)
    return {"calls": float(calls), "p50": cuts[49], "p99": cuts[98], "mean": statistics.fmean(took)}
