"""From the end of the faulty step to the message in the receiver's hands, with the real SDK, node agent, `holter serve` and a real HTTP receiver.

    python benchmarks/alert_latency.py [--faults 30]

A run steps at 50 Hz. Its loss is NaN for one step (a warning, with half a second of group wait) or for three (a page), in turns and on a fresh run
each time, so that every fault is an incident of its own. The
clock starts when `run.step` of the step that gives it away has returned, and stops when the receiver has the whole body.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

TRAINING = """
import os, sys, time
import holter
run, long = holter.init(project="latency", name=sys.argv[1]), int(sys.argv[2])
for step in range(60):
    bad = 40 <= step < 40 + long
    run.step(step, loss=float("nan") if bad else 2.0 + step % 7 / 100)
    if step == 39 + long: print(time.time(), flush=True)
    time.sleep(0.02)
run.finish()
"""


class Receiver:
    """Notes when each message had arrived."""

    def __init__(self) -> None:
        arrivals: list[tuple[float, dict[str, Any]]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                arrivals.append((time.time(), json.loads(body)))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.arrivals = arrivals
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def first(self, run: str, severity: str, timeout: float) -> float | None:
        ends = time.monotonic() + timeout
        while time.monotonic() < ends:
            for at, body in list(self.arrivals):
                if body["run_name"] == run and body["severity"] == severity:
                    return at
            time.sleep(0.005)
        return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=30)
    arguments = parser.parse_args()
    receiver = Receiver()
    seen: dict[str, list[float | None]] = {"warning": [], "critical": []}
    with tempfile.TemporaryDirectory() as folder, Path(f"{folder}/stderr").open("w") as errors:
        environment = os.environ | {
            "HOLTER_WEBHOOK_URL": receiver.url,
            "HOLTER_ALLOW_PRIVATE_RECEIVERS": "1",
            "HOLTER_DIR": f"{folder}/agent",
        }
        command = [sys.executable, "-m", "holter.cli", "serve", "--port", "0", "--data", f"{folder}/data"]
        serve = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        try:
            assert serve.stdout is not None
            url = serve.stdout.readline().split("listens on ")[1].split(",")[0]
            for number in range(arguments.faults):
                name, severity, long = f"run{number}", *(("critical", "3") if number % 2 else ("warning", "1"))
                words = [sys.executable, "-c", TRAINING, name, long]
                ran = subprocess.run(words, env=environment | {"HOLTER_URL": url}, capture_output=True, text=True, timeout=60, check=True)
                at = receiver.first(name, severity, 10.0)
                seen[severity].append(None if at is None else at - float(ran.stdout))
        finally:
            serve.terminate()
            serve.wait(20)
    print("| severity | messages | p50 s | p90 s | p99 s | max s |\n|---|---|---|---|---|---|")
    for severity, delays in seen.items():
        came = [delay for delay in delays if delay is not None]
        p50, p90, p99 = np.percentile(came or [float("nan")], [50, 90, 99])
        print(f"| {severity} | {len(came)} of {len(delays)} | {p50:.2f} | {p90:.2f} | {p99:.2f} | {max(came, default=float('nan')):.2f} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
