"""What the side-by-side ingest benchmark compares: each system as its own protocol has it, a node's eight ranks and one step in one request."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from holter.frame import CONTENT_TYPE
from ingest import POOL, Template

RANKS, METRICS = 8, 24


@dataclass(frozen=True, eq=False)
class Peer:
    """A server and how a node speaks to it."""

    name: str
    acknowledges: str
    """What is true when it has answered."""
    command: Callable[[int, Path], list[str]]
    ready: str
    path: str
    headers: dict[str, str]
    body: Callable[[int, int], bytes]
    """Of a node and a step."""
    needs: Callable[[], str]
    """What is missing on this machine, or nothing."""
    prepare: Callable[[str], None] = lambda url: None
    settle: str = ""
    """Asked before the disk is looked at."""


class HolterFrames:
    """Frames of one run, from a template a node."""

    def __init__(self) -> None:
        self.run = ""
        self.templates: dict[int, Template] = {}

    def create(self, url: str) -> None:
        self.run = httpx.post(f"{url}/api/v1/runs", json={"project": "bench", "name": "peers"}).json()["id"]

    def __call__(self, number: int, step: int) -> bytes:
        if number not in self.templates:
            self.templates[number] = Template(self.run, number, RANKS, METRICS, seed=1)
        template = self.templates[number]
        return template.request(step)[len(template.head) :]


def holter_peer() -> Peer:
    frames = HolterFrames()

    def command(port: int, folder: Path) -> list[str]:
        serve = [sys.executable, "-m", "holter.cli", "serve", "--no-detection"]
        return [*serve, "--port", str(port), "--data", str(folder / "data")]

    return Peer(
        name="holter",
        acknowledges="on disk, synced",
        command=command,
        ready="/readyz",
        path="/api/v1/frames",
        headers={"Content-Type": CONTENT_TYPE},
        body=frames,
        needs=lambda: "",
        prepare=frames.create,
    )


class RemoteWrite:
    """`prometheus.WriteRequest` by hand: labels are encoded once, a sample is a double and a varint."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.labels: dict[int, list[bytes]] = {}

    def __call__(self, number: int, step: int) -> bytes:
        import cramjam

        stamp = b"\x10" + varint(time.time_ns() // 1_000_000)
        values = self.values[(number + step) % POOL].ravel().tolist()
        series = self.labels.setdefault(number, labels_of(number))
        samples = (b"\x12" + varint(9 + len(stamp)) + b"\x09" + struct.pack("<d", value) + stamp for value in values)
        return bytes(cramjam.snappy.compress_raw(b"".join(tagged(1, head + sample) for head, sample in zip(series, samples, strict=True))))


def labels_of(number: int) -> list[bytes]:
    def label(name: str, value: str) -> bytes:
        return tagged(1, tagged(1, name.encode()) + tagged(2, value.encode()))

    ranks = range(number * RANKS, (number + 1) * RANKS)
    return [
        label("__name__", f"metric_{m:02}") + label("rank", str(rank)) + label("run", "bench") for m in range(METRICS) for rank in ranks
    ]


def tagged(tag: int, content: bytes) -> bytes:
    return bytes([tag << 3 | 2]) + varint(len(content)) + content


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


REMOTE_WRITE = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy", "X-Prometheus-Remote-Write-Version": "0.1.0"}


def lacks(command: str) -> Callable[[], str]:
    def needs() -> str:
        try:
            import cramjam  # noqa: F401
        except ImportError:
            return "cramjam is not installed"
        return "" if shutil.which(command) else f"no {command} on the path"

    return needs


def prometheus_peer(values: np.ndarray) -> Peer:
    def command(port: int, folder: Path) -> list[str]:
        (folder / "prometheus.yml").write_text("global: {}\n")
        own = ["--web.enable-remote-write-receiver", f"--storage.tsdb.path={folder / 'data'}", f"--config.file={folder / 'prometheus.yml'}"]
        return ["prometheus", *own, f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]

    return Peer(
        name="prometheus",
        acknowledges="in its log, not synced",
        command=command,
        ready="/-/ready",
        path="/api/v1/write",
        headers=REMOTE_WRITE,
        body=RemoteWrite(values),
        needs=lacks("prometheus"),
    )


def victoria_peer(values: np.ndarray) -> Peer:
    return Peer(
        name="victoria-metrics",
        acknowledges="in memory, written within seconds",
        command=lambda port, folder: ["victoria-metrics", f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={folder / 'data'}"],
        ready="/health",
        path="/api/v1/write",
        headers=REMOTE_WRITE,
        body=RemoteWrite(values),
        needs=lacks("victoria-metrics"),
        settle="/internal/force_flush",
    )


def mlflow_peer(values: np.ndarray, interpreter: str) -> Peer:
    run: dict[str, str] = {}
    floats = values.astype(float)

    def command(port: int, folder: Path) -> list[str]:
        store = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "artifacts")]
        return [interpreter, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "2", *store]

    def prepare(url: str) -> None:
        answer = httpx.post(f"{url}/api/2.0/mlflow/runs/create", json={"experiment_id": "0", "start_time": 0}, timeout=60)
        run["id"] = answer.json()["run"]["info"]["run_id"]

    def body(number: int, step: int) -> bytes:
        now, table = time.time_ns() // 1_000_000, floats[(number + step) % POOL]
        ranks = range(number * RANKS, (number + 1) * RANKS)
        entries = [
            {"key": f"rank_{rank}/metric_{m:02}", "value": table[m, rank % RANKS], "timestamp": now, "step": step}
            for m in range(METRICS)
            for rank in ranks
        ]
        return json.dumps({"run_id": run["id"], "metrics": entries}).encode()

    def needs() -> str:
        probe = subprocess.run([interpreter, "-c", "import mlflow"], capture_output=True, check=False) if interpreter else None
        return (
            ""
            if probe is not None and probe.returncode == 0
            else "MLflow is not installed (--mlflow-python names an interpreter that has it)"
        )

    return Peer(
        name="mlflow",
        acknowledges="in SQLite, committed",
        command=command,
        ready="/health",
        path="/api/2.0/mlflow/runs/log-batch",
        headers={"Content-Type": "application/json"},
        body=body,
        needs=needs,
        prepare=prepare,
    )
