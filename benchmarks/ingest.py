"""What one collector holds: separate load processes speak the real wire to a real `holter serve`, as 2,048 node agents would.

    python benchmarks/ingest.py                               # 2,048 nodes x 8 ranks x 24 metrics at 1 Hz for 60 s, storing only
    python benchmarks/ingest.py --seconds 300 --detection
    python benchmarks/ingest.py --break --seconds 20          # half as much again and again, until something gives; a table at the end

Each node keeps a connection of its own and sends a frame of one step a second, evenly spread over the second; an acknowledgement's latency runs from the
first byte sent to the answer read. CPU is the collector process's own (all its threads). A load process that falls behind its own schedule says so: then
the numbers tell of the load generator, not of the collector.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import re
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
from holter.frame import CONTENT_TYPE, Column, Frame, encode
from ingest_limits import gives, table

METRICS = ["loss", "grad_norm", "lr", "step_time_seconds", "tokens_per_second", "data_wait_seconds", "compute_seconds", "mfu"]
POOL = 64
LATE_SECONDS = 20.0
"""Behind its schedule by so much a node gives up: the answer is known, and the run must end."""
SEQ = 10_000_000_000_000
"""Numbers of one width: a frame is then made by writing over a few bytes of a template, and the load costs little."""


@dataclass
class Load:
    """One load process's report."""

    sent: int = 0
    acknowledged: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    behind_seconds: float = 0.0


class Template:
    """A node's frame whose number, steps, times and values can be written over."""

    def __init__(self, run: str, node: int, ranks: int, metrics: int, seed: int) -> None:
        names = [METRICS[i] if i < len(METRICS) else f"metric_{i:02}" for i in range(metrics)]
        # Of every node its own: with the values of one for all, a column repeats after eight rows, and DuckDB's sample of it is blind (4.4 bytes a point).
        self.noise = np.random.default_rng([seed, node]).normal(2.5, 0.05, (POOL, metrics, ranks)).astype("<f4")
        self.ranks = ranks
        zeros = np.zeros(ranks, "<f4")
        whole = Frame(
            run=run,
            attempt="a1",
            node=f"node-{node:05}",
            boot=f"boot-{node:05}-{seed}",
            seq=SEQ,
            sent_ns=10**18,
            rank=np.arange(node * ranks, (node + 1) * ranks, dtype="<i4"),
            step=np.zeros(ranks, "<i8"),
            time_ns=np.zeros(ranks, "<i8"),
            metrics={name: Column(zeros) for name in names},
        )
        self.body = bytearray(encode(whole))
        (length,) = struct.unpack_from("<I", self.body, 4)
        self.seq = self.body.index(str(SEQ).encode())
        self.sent = self.body.index(str(10**18).encode())
        self.step = 8 + length + 4 * ranks
        head = (
            f"POST /api/v1/frames HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(self.body)}\r\n\r\n"
        )
        self.head = head.encode()

    def request(self, number: int) -> bytes:
        body, now = self.body, time.time_ns()
        body[self.seq : self.seq + 14] = str(SEQ + number).encode()
        body[self.sent : self.sent + 19] = str(now).encode()
        keys = np.concatenate((np.full(self.ranks, number, "<i8"), np.full(self.ranks, now, "<i8")))
        body[self.step : -4] = keys.tobytes() + self.noise[number % POOL].tobytes()
        struct.pack_into("<I", body, len(body) - 4, zlib.crc32(memoryview(body)[:-4]))
        return self.head + bytes(body)


class Node(asyncio.Protocol):
    """One node's connection: a request, its answer, the next."""

    def __init__(self, load: Load) -> None:
        self.load, self.buffer, self.answered = load, b"", asyncio.Event()
        self.is_closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, blank, rest = self.buffer.partition(b"\r\n\r\n")
        if blank and len(rest) >= int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE).group(1)):
            status = head.split(b" ", 2)[1].decode()
            if status == "200":
                self.load.acknowledged += 1
            else:
                self.load.refused[status] = self.load.refused.get(status, 0) + 1
            self.load.latencies.append(time.perf_counter() - self.began)
            self.buffer = b""
            self.answered.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_closed = True
        self.answered.set()

    async def post(self, request: bytes) -> None:
        self.began = time.perf_counter()
        self.answered.clear()
        self.load.sent += 1
        self.transport.write(request)
        await self.answered.wait()
        if self.is_closed:
            self.load.refused["closed"] = self.load.refused.get("closed", 0) + 1


async def play(node: int, template: Template, load: Load, *, port: int, start: float, seconds: float, hertz: float, first: int) -> None:
    phase = (node * 0.6180339887) % 1 / hertz
    await asyncio.sleep(max(0.0, start - 1 - time.time()) + phase)
    _, connection = await asyncio.get_running_loop().create_connection(lambda: Node(load), "127.0.0.1", port)
    for number in range(int(seconds * hertz)):
        due = start + phase + number / hertz
        wait = due - time.time()
        if wait < -LATE_SECONDS:
            return
        if wait > 0:
            await asyncio.sleep(wait)
        else:
            load.behind_seconds = max(load.behind_seconds, -wait)
        await connection.post(template.request(first + number))
        if connection.is_closed:
            return
    connection.transport.close()


def generate(arguments: argparse.Namespace, share: range, run: str, port: int, start: float, first: int, reports: object) -> None:
    """A load process: its share of the nodes."""
    import uvloop

    load = Load()
    templates = {node: Template(run, node, arguments.ranks, arguments.metrics, seed=arguments.seed) for node in share}

    async def all_nodes() -> None:
        facts = dict(port=port, start=start, seconds=arguments.seconds, hertz=arguments.hertz, first=first)
        await asyncio.gather(*(play(node, templates[node], load, **facts) for node in share))

    uvloop.run(all_nodes())
    reports.put(load)


class Watch(threading.Thread):
    """Looks at the collector once a second from outside: its CPU, its memory, the lag of its consumers."""

    def __init__(self, pid: int, url: str) -> None:
        super().__init__(daemon=True)
        self.process, self.url, self.done = psutil.Process(pid), url, threading.Event()
        self.seconds = 0.0
        self.lags: dict[str, list[float]] = {"samples": [], "detection": []}
        self.memory = 0
        self.cpu_seconds = 0.0

    def run(self) -> None:
        with httpx.Client(timeout=120) as http:
            before = self.process.cpu_times()
            while not self.done.wait(1.0) or not self.cpu_seconds:
                self.memory = max(self.memory, self.process.memory_info().rss)
                text = http.get(f"{self.url}/metrics").text
                for name, value in re.findall(r'holter_consumer_lag_seconds\{consumer="(\w+)"\} (\S+)', text):
                    self.lags[name].append(float(value))
                now = self.process.cpu_times()
                self.cpu_seconds = now.user + now.system - before.user - before.system


def measure(arguments: argparse.Namespace, url: str, port: int, pid: int, run: str, first: int) -> dict[str, object]:
    start = time.time() + 3
    reports: multiprocessing.Queue[Load] = multiprocessing.Queue()
    shares = [range(index, arguments.nodes, arguments.processes) for index in range(arguments.processes)]
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=generate, args=(arguments, share, run, port, start, first, reports)) for share in shares]
    for child in children:
        child.start()
    time.sleep(max(0.0, start - time.time()))
    watch = Watch(pid, url)
    watch.start()
    loads = [reports.get(timeout=arguments.seconds + 120) for _ in children]
    watch.seconds = time.time() - start
    watch.done.set()
    watch.join()
    for child in children:
        child.join(30)
    latencies = np.concatenate([np.array(load.latencies) for load in loads]) * 1000
    refused: dict[str, int] = {}
    for load in loads:
        for status, count in load.refused.items():
            refused[status] = refused.get(status, 0) + count
    return {
        "points_per_second": arguments.nodes * arguments.hertz * arguments.ranks * arguments.metrics,
        "frames_per_second": arguments.nodes * arguments.hertz,
        "sent": sum(load.sent for load in loads),
        "acknowledged": sum(load.acknowledged for load in loads),
        "refused": refused,
        "ack_ms": {f"p{q}": round(float(np.percentile(latencies, q)), 1) for q in (50, 90, 99, 100)},
        "cpu_of_one_core": round(watch.cpu_seconds / max(arguments.seconds, watch.seconds), 3),
        "cpu_seconds_per_1000_frames": round(watch.cpu_seconds / max(1, sum(load.acknowledged for load in loads)) * 1000, 4),
        "resident_mib": watch.memory >> 20,
        "lag_seconds_max": {name: round(max(values), 2) for name, values in watch.lags.items() if values},
        "load_behind_seconds": round(max(load.behind_seconds for load in loads), 2),
    }


def bytes_per_point(data: Path, url: str) -> dict[str, float]:
    with httpx.Client(timeout=60) as http:
        text = http.get(f"{url}/metrics").text
    points = float(re.search(r"^holter_points_total (\S+)", text, re.MULTILINE).group(1))
    sizes = {path.name: path.stat().st_size for path in data.iterdir()}
    return {"points": points} | {name: round(size / points, 2) for name, size in sizes.items() if size > 1 << 20}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=2048)
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--metrics", type=int, default=24)
    parser.add_argument("--hertz", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--detection", action="store_true", help="with the detection engine")
    parser.add_argument("--break", dest="until_break", action="store_true", help="raise the rate by half until something gives")
    parser.add_argument("--steps", type=int, default=8, help="of --break, at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--profile", help="py-spy's flame graph of the collector, into this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        command = [sys.executable, "-m", "holter.cli", "serve", "--port", "0", "--data", str(data)]
        server = subprocess.Popen(command + ([] if arguments.detection else ["--no-detection"]), stdout=subprocess.PIPE, text=True)
        try:
            url = server.stdout.readline().split("listens on ")[1].split(",")[0]
            run = httpx.post(
                f"{url}/api/v1/runs", json={"project": "bench", "name": "llama", "world_size": arguments.nodes * arguments.ranks}
            )
            port, first = int(url.rsplit(":", 1)[1]), 0
            if arguments.profile:
                spy = ["py-spy", "record", "-d", str(int(arguments.seconds)), "-r", "200", "-t", "-f", "raw", "-o", arguments.profile]
                subprocess.Popen([*spy, "-p", str(server.pid)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            print(json.dumps({"cores": os.cpu_count(), "python": platform.python_version(), "machine": platform.platform()}))
            results: list[dict[str, object]] = []
            while True:
                result = measure(arguments, url, port, server.pid, run.json()["id"], first)
                time.sleep(3)
                print(json.dumps(result | {"bytes_per_point": bytes_per_point(data, url)}), flush=True)
                first += int(arguments.seconds * arguments.hertz)
                results.append(result)
                if not arguments.until_break:
                    return 0
                if gives(result) or len(results) >= arguments.steps:
                    print(table(results))
                    return 0
                arguments.hertz *= 1.5
        finally:
            server.terminate()
            server.wait(30)


if __name__ == "__main__":
    raise SystemExit(main())
