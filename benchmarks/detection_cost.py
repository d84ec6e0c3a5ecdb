"""What detection costs: microseconds a record and detector on a log, milliseconds a step on 16,384 ranks, bytes of state.

    python benchmarks/detection_cost.py [--records 20000] [--ranks 16384] [--steps 60]

CPU time of this process (other load on the machine does not count); the first quarter of each stream is warm-up and is not measured.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
from holter_monitor.detectors import DETECTORS
from holter_monitor.engine import Engine
from holter_monitor.stream.steps import RunFacts, Step
from holter_monitor.stream.summaries import summarize

SCALARS = {
    "loss": 2.5,
    "grad_norm": 0.5,
    "lr": 3e-4,
    "step_time_seconds": 0.8,
    "tokens_per_second": 1e5,
    "data_wait_seconds": 0.01,
    "process_memory_rss_bytes": 4e9,
}
MORE = ("compute_seconds", "mfu", "section_forward_seconds", "section_backward_seconds", "section_optimizer_seconds", "tokens")
GPU = (
    "gpu_utilization_ratio",
    "gpu_memory_used_bytes",
    "gpu_memory_total_bytes",
    "gpu_temperature_celsius",
    "gpu_power_watts",
    "gpu_sm_clock_hertz",
    "gpu_sm_clock_max_hertz",
    "gpu_throttle_reasons",
    "gpu_ecc_corrected_total",
    "gpu_ecc_uncorrected_total",
    "process_gc_pause_seconds",
)
WIDE = (*SCALARS, *MORE, *GPU)
CONSTANT = (
    "gpu_throttle_reasons",
    "gpu_ecc_corrected_total",
    "gpu_ecc_uncorrected_total",
    "gpu_memory_total_bytes",
    "gpu_sm_clock_max_hertz",
)


def records(count: int) -> list[Step]:
    rng = np.random.default_rng(0)
    noise = np.exp(0.02 * rng.standard_normal((count, len(SCALARS))))
    rows = noise * np.array(list(SCALARS.values()))
    return [Step.of(i, dict(zip(SCALARS, row, strict=True)), time=float(i), attempt="1") for i, row in enumerate(rows.tolist())]


def wide_steps(ranks: int, count: int) -> list[Step]:
    rng = np.random.default_rng(0)
    levels = np.array([SCALARS.get(name, 100.0) for name in WIDE])[:, None]
    spread = np.array([0.0 if name in CONSTANT else 0.02 for name in WIDE])[:, None]
    levels[[WIDE.index("gpu_throttle_reasons"), WIDE.index("gpu_ecc_uncorrected_total")]] = 0.0
    rows, who, present = (
        {name: place for place, name in enumerate(WIDE)},
        np.arange(ranks, dtype=np.int32),
        np.ones((len(WIDE), ranks), bool),
    )
    bases = [levels * (1.0 + spread * rng.standard_normal((len(WIDE), ranks))) for _ in range(4)]
    return [Step.of_ranks(i, who, rows, bases[i % 4], present, time=float(i), attempt="1") for i in range(count)]


def fresh(steps: list[Step]) -> list[Step]:
    """Copies without the means that an earlier engine has computed."""
    if steps[0]._matrix is None:
        return steps
    return [Step.of_ranks(s.number, s.ranks, s._rows, s._matrix, s._present, time=s.time, attempt="1") for s in steps]


def cost(detectors: list, steps: list[Step], ranks: int) -> tuple[float, Engine]:
    """CPU seconds a step, after warm-up."""
    engine, steps = Engine(RunFacts(run="cost", world_size=ranks), detectors), fresh(steps)
    warm = len(steps) // 4
    for step in steps[:warm]:
        engine.feed_step(step)
    begun = time.process_time()
    for step in steps[warm:]:
        engine.feed_step(step)
    return (time.process_time() - begun) / (len(steps) - warm), engine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--ranks", type=int, default=16_384)
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    narrow, wide = records(arguments.records), wide_steps(arguments.ranks, arguments.steps)
    base_narrow, base_wide = cost([], narrow, 1)[0], cost([], wide, arguments.ranks)[0]
    print(
        f"| detector | us a record | ms a step of {arguments.ranks} ranks x {len(WIDE)} metrics | state, bytes (one rank) |\n|---|---|---|---|"
    )
    for make in DETECTORS:
        one, engine = cost([make], narrow, 1)
        many, _ = cost([make], wide, arguments.ranks)
        name = getattr(make, "__name__", repr(make))
        print(f"| {name} | {(one - base_narrow) * 1e6:.1f} | {(many - base_wide) * 1e3:.2f} | {len(engine.snapshot())} |", flush=True)
    one, engine = cost(list(DETECTORS), narrow, 1)
    many, big = cost(list(DETECTORS), wide, arguments.ranks)
    print(f"| **whole suite** | {one * 1e6:.1f} | {many * 1e3:.2f} | {len(engine.snapshot())} |")
    begun = time.process_time()
    for step in wide[:10]:
        summarize(step)
    print(f"| summaries (live only) | | {(time.process_time() - begun) * 100:.2f} | |")
    state, budget = len(big.snapshot()), 64 * 1024 + 256 * arguments.ranks * len(WIDE)
    print(
        f"\nState of the whole suite on {arguments.ranks} ranks: {state / 2**20:.1f} MiB (budget 64 KiB + 256 B a rank and metric: {budget / 2**20:.0f} MiB)."
    )
    print(f"One million records scanned: {one * 1e6:.0f} CPU seconds.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
