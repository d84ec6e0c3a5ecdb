"""From the end of the faulty step to the message in the receiver's hands, with the real SDK, node agent, `holter serve` and a real HTTP receiver.

    python benchmarks/alert_latency.py [--faults 90]                # an idle collector
    python benchmarks/alert_latency.py --nodes 2048 --faults 30     # while so many nodes of 8 ranks send a step of 24 metrics a second, judged as well

A run steps at 100 Hz. In turns its loss is NaN for three steps (a page), NaN for one step (a warning: half a second of group wait), or jumps for
three steps (`loss_spike`), on a fresh run each time, so that every fault is an incident of its own. The clock starts when `run.step` of the step that
gives it away has returned, and stops when the receiver has the whole body. Trainer, agent, load, collector and receiver share the machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import ingest
import numpy as np
import orjson

FAULTS = {
    "page (NaN, three steps)": ("non_finite", "critical"),
    "warning (NaN, one step)": ("non_finite", None),
    "warning (spike)": ("loss_spike", None),
}
WARM_STEPS = 150
TRAINING = f"""
import random, sys, time
import holter
noise = random.Random(0)
for number in range(int(sys.argv[1])):
    run, fault = holter.init(project="latency", name=f"run{{number}}"), number % 3
    last = {WARM_STEPS} + (0 if fault == 1 else 2)
    for step in range({WARM_STEPS} + 20):
        loss = 2.0 + noise.gauss(0, 0.02)
        if {WARM_STEPS} <= step <= last:
            loss = loss + 4.0 if fault == 2 else float("nan")
        run.step(step, loss=loss)
        if step == last: print(number, time.time(), flush=True)
        time.sleep(0.01)
    run.finish()
"""


class Receiver:
    """Notes when each message had arrived."""

    def __init__(self) -> None:
        arrivals: list[tuple[float, dict[str, Any]]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                arrivals.append((time.time(), orjson.loads(body)))
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

    def first(self, run: str, kind: str, severity: str | None) -> float | None:
        """When the first message of this run about this kind had come; with a severity, the first of it."""
        for at, body in self.arrivals:
            if body["run_name"] == run and body["kind"] == kind and severity in (None, body["severity"]):
                return at
        return None


@contextmanager
def crowd(url: str, nodes: int, seconds: float) -> Iterator[None]:
    """The design load beside it, from two processes, as `ingest.py` sends it."""
    if not nodes:
        yield
        return
    run = httpx.post(f"{url}/api/v1/runs", json={"project": "bench", "name": "crowd", "world_size": nodes * 8}).json()["id"]
    words = argparse.Namespace(ranks=8, metrics=24, hertz=1.0, seconds=seconds, seed=1)
    context, reports = multiprocessing.get_context("fork"), multiprocessing.Queue()
    port, start = int(url.rsplit(":", 1)[1]), time.time() + 3
    children = [context.Process(target=ingest.generate, args=(words, range(i, nodes, 2), run, port, start, 0, reports)) for i in range(2)]
    for child in children:
        child.start()
    time.sleep(15)  # let it settle
    try:
        yield
    finally:
        busy = [child.is_alive() for child in children]
        loads = [reports.get(timeout=seconds) for _ in children] if not any(busy) else []
        for child in children:
            child.kill()
            child.join()
        said = (
            f"ended early: {sum(load.acknowledged for load in loads)} of {sum(load.sent for load in loads)} acknowledged"
            if loads
            else "went on to the end"
        )
        print(f"the load of {nodes} nodes {said}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=90)
    parser.add_argument("--nodes", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=200.0, help="give up after so long")
    arguments = parser.parse_args()
    receiver, faults = Receiver(), list(FAULTS.items())
    delays: dict[str, list[float | None]] = {words: [] for words in FAULTS}
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
            with crowd(url, arguments.nodes, arguments.seconds):
                words = [sys.executable, "-c", TRAINING, str(arguments.faults)]
                try:
                    said = subprocess.run(
                        words, env=environment | {"HOLTER_URL": url}, stdout=subprocess.PIPE, text=True, timeout=arguments.seconds
                    ).stdout
                except subprocess.TimeoutExpired as late:
                    said = (late.stdout or b"").decode()
                time.sleep(5)
        finally:
            serve.terminate()
            serve.wait(30)
    for line in said.splitlines():
        number, at = line.split()
        words, (kind, severity) = faults[int(number) % 3]
        came = receiver.first(f"run{number}", kind, severity)
        delays[words].append(None if came is None else came - float(at))
    print("| fault | messages | p50 s | p90 s | p99 s | max s |\n|---|---|---|---|---|---|")
    for words, found in delays.items():
        came = [delay for delay in found if delay is not None]
        p50, p90, p99 = np.percentile(came or [float("nan")], [50, 90, 99])
        print(f"| {words} | {len(came)} of {len(found)} | {p50:.2f} | {p90:.2f} | {p99:.2f} | {max(came, default=float('nan')):.2f} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
