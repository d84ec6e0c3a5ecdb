"""The same points through Holter, Prometheus' remote write, VictoriaMetrics and MLflow's tracking server, one after the other on one machine.

    python benchmarks/ingest_peers.py                     # 256 nodes x 8 ranks x 24 metrics, 1 Hz for 30 s, then as fast as each takes them for 10 s
    python benchmarks/ingest_peers.py --only holter mlflow --mlflow-python ~/mlflow/bin/python

A node sends its eight ranks' values of one step in one request, as each system's own protocol has it: a frame, a snappy-compressed `WriteRequest`, a
`log-batch`. What an acknowledgement is worth differs, and the table says it. A system that is not installed is left out and named. Wants `cramjam` for
snappy; `prometheus` and `victoria-metrics` as Debian has them; MLflow in an interpreter of its own (`--mlflow-python`), since it brings much along.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
from ingest import POOL
from ingest_systems import METRICS, RANKS, Peer, holter_peer, mlflow_peer, prometheus_peer, victoria_peer

LANES = 32
"""Connections in the phase without a clock."""


class Connection(asyncio.Protocol):
    """A request, its answer, the next; status and length are all that is read."""

    def __init__(self) -> None:
        self.buffer, self.status, self.answered = b"", 0, asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, blank, rest = self.buffer.partition(b"\r\n\r\n")
        if not blank:
            return
        lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        if len(rest) >= length:
            self.status, self.buffer = int(lines[0].split(b" ", 2)[1]), b""
            self.answered.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.status = 0
        self.answered.set()

    async def post(self, request: bytes) -> int:
        self.answered.clear()
        self.transport.write(request)
        await self.answered.wait()
        return self.status


@dataclass
class Tally:
    acknowledged: int = 0
    refused: dict[int, int] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)

    async def post(self, connection: Connection, request: bytes) -> None:
        began = time.perf_counter()
        status = await connection.post(request)
        self.latencies.append(time.perf_counter() - began)
        if 200 <= status < 300:
            self.acknowledged += 1
        else:
            self.refused[status] = self.refused.get(status, 0) + 1


async def connect(port: int) -> Connection:
    return (await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port))[1]


def request(peer: Peer, number: int, step: int) -> bytes:
    body = peer.body(number, step)
    head = f"POST {peer.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
    return (head + "".join(f"{name}: {value}\r\n" for name, value in peer.headers.items()) + "\r\n").encode() + body


async def by_the_clock(peer: Peer, port: int, tally: Tally, arguments: argparse.Namespace) -> None:
    """Every node a step a second on a connection of its own, spread over the second; what is not answered in time is not sent the next step."""
    start, steps = time.time() + 1, int(arguments.seconds)

    async def node(number: int) -> None:
        connection = await connect(port)
        for step in range(steps):
            due = start + number * 0.6180339887 % 1 + step
            await asyncio.sleep(max(0.0, due - time.time()))
            if time.time() > start + steps + 1:
                return
            await tally.post(connection, request(peer, number, step))

    await asyncio.gather(*(node(number) for number in range(arguments.nodes)))


async def at_once(port: int, tally: Tally, requests: list[bytes], seconds: float) -> None:
    """As fast as the answers come, over `LANES` connections; the requests were made before, so that their making is nobody's cost."""
    left, until = iter(requests), time.time() + seconds

    async def lane() -> None:
        connection = await connect(port)
        for text in left:
            if time.time() > until:
                return
            await tally.post(connection, text)

    await asyncio.gather(*(lane() for _ in range(LANES)))


def cpu_seconds(process: psutil.Process) -> float:
    """Of the server and what it has started (MLflow's workers)."""
    family = [process, *process.children(recursive=True)]
    return sum(sum(member.cpu_times()[:2]) for member in family)


def resident(process: psutil.Process) -> int:
    return sum(member.memory_info().rss for member in [process, *process.children(recursive=True)])


def phase(process: psutil.Process, tally: Tally, load: Coroutine[None, None, None], limit: float) -> dict[str, float]:
    """Plays one load, at most `limit` seconds, and says what it cost."""
    import uvloop

    async def bounded() -> None:
        with suppress(asyncio.TimeoutError):  # what is not answered by then is not acknowledged
            await asyncio.wait_for(load, limit)

    before, began = cpu_seconds(process), time.perf_counter()
    uvloop.run(bounded())
    wall, spent = time.perf_counter() - began, cpu_seconds(process) - before
    points = tally.acknowledged * RANKS * METRICS
    return {
        "points": points,
        "points_per_second": points / wall,
        "cpu_per_million": spent / points * 1e6 if points else float("nan"),
        "ack_p50_ms": float(np.percentile(tally.latencies, 50)) * 1e3 if points else float("nan"),
        "ack_p99_ms": float(np.percentile(tally.latencies, 99)) * 1e3 if points else float("nan"),
        "refused": sum(tally.refused.values()),
    }


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def measure(peer: Peer, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder, serving(peer, Path(folder)) as (process, port):
        url = f"http://127.0.0.1:{port}"
        peer.prepare(url)
        empty, tally = on_disk(Path(folder)), Tally()
        steady = phase(process, tally, by_the_clock(peer, port, tally, arguments), arguments.seconds + 30)
        steady["held"] = tally.acknowledged / (arguments.nodes * int(arguments.seconds))
        if peer.settle:
            httpx.get(url + peer.settle, timeout=60)
        time.sleep(5)  # for consumers and flushes
        steady["bytes_per_point"] = (on_disk(Path(folder)) - empty) / max(1.0, steady["points"])
        steady["resident_mib"] = resident(process) >> 20
        first, tally = int(arguments.seconds), Tally()
        requests = [request(peer, index % arguments.nodes, first + index // arguments.nodes) for index in range(arguments.requests)]
        return {"steady": steady, "burst": phase(process, tally, at_once(port, tally, requests, arguments.burst), arguments.burst + 30)}


@contextmanager
def serving(peer: Peer, folder: Path) -> Iterator[tuple[psutil.Process, int]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(peer.command(port, folder), stdout=log, stderr=log, cwd=folder)
    try:
        wait_for(f"http://127.0.0.1:{port}{peer.ready}", server, folder / "log")
        yield psutil.Process(server.pid), port
    finally:
        children = psutil.Process(server.pid).children(recursive=True)
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
        for child in children:
            if child.is_running():
                child.kill()


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if server.poll() is not None:
            raise SystemExit(f"the server ended: {log.read_text()[-2000:]}")
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"{url} did not answer within a minute: {log.read_text()[-2000:]}")


COLUMNS = (
    "",
    "acknowledged means",
    "held at 1 Hz",
    "ack p50 / p99 ms",
    "CPU s a million points",
    "bytes a point",
    "MiB",
    "points/s unclocked",
    "CPU s a million",
)


def table(rows: dict[Peer, dict[str, dict[str, float]]]) -> None:
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for peer, row in rows.items():
        steady, burst = row["steady"], row["burst"]
        cells = [peer.name, peer.acknowledges, f"{steady['held']:.0%}", f"{steady['ack_p50_ms']:.1f} / {steady['ack_p99_ms']:.1f}"]
        cells += [f"{steady['cpu_per_million']:.2f}", f"{steady['bytes_per_point']:.1f}", f"{steady['resident_mib']}"]
        print("| " + " | ".join([*cells, f"{burst['points_per_second']:,.0f}", f"{burst['cpu_per_million']:.2f}"]) + " |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=30, help="of the phase at 1 Hz")
    parser.add_argument("--burst", type=float, default=20, help="of the phase without a clock, at most")
    parser.add_argument("--requests", type=int, default=10_000, help="of the phase without a clock")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of holter, prometheus, victoria-metrics, mlflow")
    parser.add_argument("--mlflow-python", default=sys.executable, metavar="PATH", help="an interpreter that has MLflow")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    values = np.random.default_rng(1).normal(2.5, 0.05, (POOL, METRICS, RANKS)).astype("<f4")
    peers = [holter_peer(), prometheus_peer(values), victoria_peer(values), mlflow_peer(values, arguments.mlflow_python)]
    rows: dict[Peer, dict[str, dict[str, float]]] = {}
    for peer in peers:
        missing = peer.needs() if not arguments.only or peer.name in arguments.only else "not asked for"
        if missing:
            print(f"{peer.name} is left out: {missing}", file=sys.stderr)
            continue
        rows[peer] = measure(peer, arguments)
    print(
        f"{arguments.nodes} nodes x {RANKS} ranks x {METRICS} metrics, {os.cpu_count()} cores, Python {sys.version.split()[0]}; the load runs on the same cores"
    )
    if arguments.json:
        print(json.dumps({peer.name: row for peer, row in rows.items()}, indent=2))
    table(rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
