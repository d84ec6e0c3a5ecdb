"""Induced causes in real processes: each fault is done to a real two-rank training on a real collector; is the right cause ranked first?

    python benchmarks/induced_causes.py [--only NAME …]

Two processes train a small network (numpy, synchronous through a socket), watched by the real SDK, node agent and `holter serve`. Then something
really happens to them: a signal, a leak, a poisoned batch. Prints one line a fault: the incidents of the run, and the first cause of the one asked for.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
TRAINING = '''
import os, socket, sys, time
import numpy as np
import holter

rank, port, fault, attempt, pause = int(os.environ["RANK"]), int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
steps = int(sys.argv[5])
if rank == 0:
    server = socket.create_server(("127.0.0.1", port)); peer, _ = server.accept()
else:
    for _ in range(100):
        try: peer = socket.create_connection(("127.0.0.1", port)); break
        except OSError: time.sleep(0.1)
peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

def reduce(values):
    """All-reduce of two ranks: the mean of both."""
    data = values.astype(np.float64).tobytes(); peer.sendall(data); got = b""
    while len(got) < len(data):
        more = peer.recv(len(data) - len(got))
        if not more: raise ConnectionError("the peer is gone")
        got += more
    return (values + np.frombuffer(got, np.float64).reshape(values.shape)) / 2

dice = np.random.default_rng(rank)
truth = np.random.default_rng(99).normal(size=(32, 8))
w1, w2 = np.random.default_rng(1).normal(size=(32, 48)) * 0.15, np.random.default_rng(2).normal(size=(48, 8)) * 0.15
leak, lr = [], 0.15

def loader():
    for step in range(steps):
        x = dice.normal(size=(64, 32)); y = (x @ truth).argmax(1)
        if fault == "garbage_batch" and 600 <= step < 602:
            x, y = dice.normal(size=(64, 32)) * 6, dice.integers(0, 8, 64)
        if fault == "slow_loader" and step >= 500: time.sleep(pause * 3)
        if fault == "stalls" and step in STALLS: time.sleep(pause * 25)
        yield x, y

STALLS = set(np.random.default_rng(5).choice(np.arange(150, steps), 14, replace=False).tolist())
config = {"checkpoint_interval": 100} if fault == "checkpoint_expired" else {}
run = holter.init(project="induced", name=fault, config=config)
for step, (x, y) in enumerate(run.batches(loader())):
    with run.section("forward_backward"):
        if fault == "crash" and step == 600 and rank == 1: raise RuntimeError("shape '[2, 3]' is invalid for input of size 5")
        ends = time.process_time() + pause * 0.5
        h = np.maximum(x @ w1, 0); logits = h @ w2; logits -= logits.max(1, keepdims=True)
        p = np.exp(logits); p /= p.sum(1, keepdims=True)
        loss = float(-np.log(p[np.arange(64), y] + 1e-12).mean())
        p[np.arange(64), y] -= 1; p /= 64
        g2 = h.T @ p; gh = p @ w2.T; gh[h <= 0] = 0; g1 = x.T @ gh
        while time.process_time() < ends: (x @ w1).sum()
    with run.section("communication", communication=True):
        g1, g2 = reduce(g1), reduce(g2); loss = float(reduce(np.array([loss]))[0])
    time.sleep(pause * 0.5)
    norm = float(np.sqrt((g1 ** 2).sum() + (g2 ** 2).sum()))
    if fault == "raised_learning_rate" and step == 600: lr *= 400
    if fault == "leak" and step >= 100: leak.append(np.ones(400_000))
    w1 -= lr * g1; w2 -= lr * g2
    run.step(step, loss=loss, grad_norm=norm, lr=lr, tokens=64)
    if fault == "checkpoint_expired" and step % 100 == 0 and 0 < step <= 500: run.checkpoint(f"/ckpt/{step}", step)
run.finish()
'''


@dataclass(frozen=True)
class Fault:
    """One thing that is done, and what should be said about it."""

    kinds: tuple[str, ...]
    cause: str
    what: str
    attempts: int = 1
    pause: float = 0.01
    steps: int = 1500
    seconds: float = 60.0
    """How long to wait for the incident."""
    act: Callable[[list[subprocess.Popen[bytes]]], Any] | None = None
    """What is done to the processes, some 600 steps in."""


def kill(ranks: list[subprocess.Popen[bytes]]) -> None:
    ranks[1].send_signal(signal.SIGKILL)


def stop(ranks: list[subprocess.Popen[bytes]]) -> None:
    ranks[1].send_signal(signal.SIGSTOP)


def hog(ranks: list[subprocess.Popen[bytes]]) -> list[subprocess.Popen[bytes]]:
    """Rank 1 and six busy processes on the same core."""
    core = {max(os.sched_getaffinity(0))}
    os.sched_setaffinity(ranks[1].pid, core)
    busy = [subprocess.Popen([sys.executable, "-c", "import time\ne=time.time()+60\nwhile time.time()<e: pass"]) for _ in range(6)]
    for process in busy:
        os.sched_setaffinity(process.pid, core)
    return busy


FAULTS = {
    "killed": Fault(("rank_lost",), "killed", "SIGKILL to rank 1", steps=4000, act=kill),
    "crash": Fault(("rank_lost",), "crash", "rank 1 raises"),
    "stopped": Fault(("hang",), "frozen_rank", "SIGSTOP to rank 1", steps=4000, seconds=120, act=stop),
    "garbage_batch": Fault(("loss_spike", "grad_explosion"), "bad_batch", "two batches of scaled noise with random labels"),
    "raised_learning_rate": Fault(("loss_divergence", "loss_spike", "loss_shift", "non_finite"), "changed_schedule", "learning rate x400"),
    "slow_loader": Fault(("data_stall", "throughput_drop"), "slow_loader", "each batch takes three steps' time longer"),
    "leak": Fault(("memory_growth",), "leak", "3.2 MB a step are kept", steps=1200),
    "stalls": Fault(("step_locked_stalls",), "data_position", "14 batches stall, in both attempts", attempts=2, steps=900),
    "checkpoint_expired": Fault(("checkpoint_overdue",), "checkpoint_late", "every 100 steps, then no more"),
    "cpu_hog": Fault(("straggler", "throughput_drop"), "busy_cpu", "six busy processes on rank 1's core", steps=3000, act=hog),
}


def free_port() -> int:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return int(it.getsockname()[1])


def induce(name: str, url: str, folder: Path) -> tuple[str, str, str]:
    """Do it; what came of it: the incidents, the first cause, its evidence."""
    fault, started = FAULTS[name], []
    try:
        for attempt in range(fault.attempts):
            ranks, port = [], free_port()
            for rank in range(2):
                environment = os.environ | {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "HOLTER_URL": url}
                environment |= {"HOLTER_DIR": str(folder / name), "OMP_NUM_THREADS": "1", "HOLTER_ATTEMPT": f"{name}-{attempt}"}
                words = [sys.executable, "-c", TRAINING, str(port), name, str(attempt), str(fault.pause), str(fault.steps)]
                ranks.append(subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL))
            started += ranks
            if fault.act is not None:
                wait_for_step(url, name, 600)
                started += fault.act(ranks) or []
            if attempt < fault.attempts - 1:
                for process in ranks:
                    process.wait(180)
        return look(url, name, fault)
    except (httpx.HTTPError, subprocess.TimeoutExpired) as error:
        return "", f"not measured: {type(error).__name__}", ""
    finally:
        for process in started:
            process.kill()
            process.wait(10)


def ask(url: str, path: str, **parameters: Any) -> Any:
    return httpx.get(f"{url}/api/v1/{path}", params=parameters, trust_env=False, timeout=60).json()


def wait_for_step(url: str, name: str, step: int) -> None:
    ends = time.monotonic() + 120
    while time.monotonic() < ends:
        for run in ask(url, "runs")["items"]:
            if run["name"] == name and (run["last_step"] or 0) >= step:
                return
        time.sleep(0.5)


def look(url: str, name: str, fault: Fault) -> tuple[str, str, str]:
    ends, found = time.monotonic() + fault.seconds + fault.steps * fault.pause * 2, []
    while time.monotonic() < ends:
        runs = {run["id"] for run in ask(url, "runs")["items"] if run["name"] == name}
        found = [item for run in runs for item in ask(url, "incidents", run=run)["items"]]
        wanted = [item for item in found if item["kind"] in fault.kinds]
        if wanted:
            time.sleep(3)  # what else there is to say about it
            causes = ask(url, f"incidents/{wanted[-1]['id']}")["causes"]
            first = causes[0] if causes else {"cause": "none", "evidence": []}
            return ", ".join(sorted({item["kind"] for item in found})), first["cause"], "; ".join(first["evidence"])[:160]
        time.sleep(0.5)
    return ", ".join(sorted({item["kind"] for item in found})) or "none", "no incident of the kind", ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=sorted(FAULTS), default=sorted(FAULTS))
    parser.add_argument("--at-once", type=int, default=2, help="faults that are done side by side")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder, port = Path(text), free_port()
        command = [sys.executable, "-m", "holter.cli", "serve", "--port", str(port), "--data", str(folder / "data")]
        serve = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=(folder / "stderr").open("w"), text=True)
        threading.Timer(900, serve.kill).start()
        assert serve.stdout is not None
        serve.stdout.readline()
        rows = []
        try:
            with ThreadPoolExecutor(arguments.at_once) as pool:
                jobs = {name: pool.submit(induce, name, f"http://127.0.0.1:{port}", folder) for name in arguments.only}
                for name, job in jobs.items():
                    rows.append((name, *job.result()))
                    kinds, cause, evidence = rows[-1][1:]
                    right = "yes" if cause == FAULTS[name].cause else "NO"
                    print(f"| {name} | {FAULTS[name].what} | {kinds} | {cause} | {right} | {evidence} |", flush=True)
        finally:
            serve.kill()
        print(f"right cause first: {sum(row[2] == FAULTS[row[0]].cause for row in rows)} of {len(rows)}")
    os._exit(0)  # the timer


if __name__ == "__main__":
    raise SystemExit(main())
