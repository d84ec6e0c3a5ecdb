"""How long `holter scan` takes over a log of many records, as a whole process.

    python benchmarks/scan.py [--records 1000000]

The log is a CSV of five metrics with ordinary noise: a falling loss, its gradient norm, the learning rate, step and data time.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def write(path: Path, records: int) -> None:
    noise = np.random.default_rng(0).normal(0, 1, (records, 4))
    step = np.arange(records)
    loss = 2 + 4 * np.exp(-step / 20_000) + 0.03 * noise[:, 0]
    columns = [
        step,
        loss,
        np.exp(0.1 * noise[:, 1]),
        np.full(records, 3e-4),
        1 + 0.02 * np.abs(noise[:, 2]),
        0.01 + 0.001 * np.abs(noise[:, 3]),
    ]
    names = "step,loss,grad_norm,lr,step_time_s,data_time_s"
    np.savetxt(path, np.column_stack(columns), fmt=["%d", *["%.5g"] * 5], delimiter=",", header=names, comments="")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.csv"
        write(log, arguments.records)
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "holter.cli", "scan", str(log), "--json"], stdout=subprocess.DEVNULL, check=False)
        wall = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print("| records | wall s | CPU s | peak MiB |\n|---:|---:|---:|---:|")
    print(f"| {arguments.records:,} | {wall:.1f} | {used.ru_utime + used.ru_stime:.1f} | {used.ru_maxrss / 1024:.0f} |")


if __name__ == "__main__":
    main()
