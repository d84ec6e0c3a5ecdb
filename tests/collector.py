"""A real collector process for tests: started on a free port, ended with the test."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from holter.frame import CONTENT_TYPE, Column, Frame, encode


class Collector:
    def __init__(self, data: Path, *arguments: str, environment: dict | None = None, prefix: tuple = ()) -> None:
        self.data, self.arguments, self.environment, self.prefix = data, arguments, environment or {}, prefix
        self.http = httpx.Client(timeout=60)

    def start(self) -> "Collector":
        self.errors = (self.data.parent / f"{self.data.name}.stderr").open("a")
        self.process = subprocess.Popen(
            [*self.prefix, sys.executable, "-m", "holter.cli", "serve", "--port", "0", "--data", str(self.data), *self.arguments],
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=os.environ | self.environment,
        )
        line = self.process.stdout.readline()
        assert "listens on " in line, f"no start: {line!r} {Path(self.errors.name).read_text()[-2000:]}"
        self.url = line.split("listens on ")[1].split(",")[0]
        self.http.base_url = self.url
        return self

    def kill(self, number: int = signal.SIGKILL) -> int:
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)  # under strace the collector is strace's child, and would outlive it
        return self.process.wait(60)

    def stop(self) -> int:
        return self.kill(signal.SIGTERM)

    def close(self) -> None:
        self.kill()
        self.process.stdout.close()
        self.errors.close()

    def new_run(self, name: str = "n", project: str = "p", **more) -> str:
        answer = self.http.post("/api/v1/runs", json={"project": project, "name": name, **more})
        assert answer.status_code in (200, 201), answer.text
        return answer.json()["id"]

    def send(self, frame: Frame | bytes, **headers) -> httpx.Response:
        body = frame if isinstance(frame, bytes) else encode(frame)
        return self.http.post("/api/v1/frames", content=body, headers={"Content-Type": CONTENT_TYPE, **headers})

    def get(self, path: str, **parameters):
        answer = self.http.get(f"/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def until(self, question, seconds: float = 60):
        """The first true answer of `question()`; a test waits for an effect, never for a time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if answer := question():
                return answer
            time.sleep(0.05)
        raise AssertionError(f"not within {seconds} s; {Path(self.errors.name).read_text()[-2000:]}")


def make_token(data: Path, name: str, *arguments: str) -> dict:
    """What `holter token create --json` says; made before the collector starts, or while it runs."""
    command = [sys.executable, "-m", "holter.cli", "token", "create", name, "--data", str(data), "--json", *arguments]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def ask(running: Collector, who: str | None, method: str, path: str, **more) -> httpx.Response:
    """`who` is a name in `running.tokens`, a token, or None."""
    token = running.tokens.get(who, who)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return running.http.request(method, path, headers=headers | more.pop("headers", {}), **more)


@contextmanager
def collector(data: Path, *arguments: str, **more):
    running = Collector(data, *arguments, **more)
    try:
        yield running.start()
    finally:
        running.close()


def frame(run: str, seq: int, *, step: int | None = None, ranks=(0,), metrics: dict | None = None, **more) -> Frame:
    """One step of some ranks; `metrics`: name → value or list over ranks (None: not logged)."""
    step = seq if step is None else step
    columns = {}
    for name, values in (metrics or {"loss": 2.0}).items():
        values = list(values) if isinstance(values, list | tuple) else [values] * len(ranks)
        present = np.array([value is not None for value in values])
        numbers = np.array([0.0 if value is None else value for value in values], "<f4")
        columns[name] = Column(numbers, None if present.all() else present)
    base = dict(run=run, attempt="a1", node="n1", boot="b1", seq=seq, sent_ns=time.time_ns())
    arrays = dict(rank=np.array(ranks, np.int32), step=np.full(len(ranks), step), time_ns=np.full(len(ranks), time.time_ns()))
    return Frame(**{**base, **arrays, "metrics": columns, **more})
