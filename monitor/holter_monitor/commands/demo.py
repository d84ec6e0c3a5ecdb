"""Watch a real training run fall ill: a collector, two ranks, one real fault, the message it sends. No GPU, no account.

Starts `holter serve` on loopback, trains a small transformer with torch.distributed (gloo, 2 ranks), really poisons it once (garbage
batches at a raised learning rate), and prints the step line, the incident and the Slack message as they come. With a terminal the
collector then stays until Ctrl-C, so that the page can be looked at; nothing is left running afterwards.
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from queue import Empty
from typing import Any

import httpx

from holter_monitor.demo.processes import free_port, python, stop, stop_all_that_use
from holter_monitor.demo.receiver import Receiver
from holter_monitor.demo.screen import Screen

RANKS = 2
PATIENCE_SECONDS = 30.0
"""How long to wait for the collector to come up, and for the message after the last step."""
SHOWN = ("grad_norm", "tokens_per_second", "data_wait_seconds")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=900, help="steps to train (default 900, some 20 seconds)")
    parser.add_argument(
        "--poison-at", type=int, default=650, help="the step at which the run is poisoned; beyond --steps: never (default 650)"
    )
    parser.add_argument("--port", type=int, default=0, help="the collector's port (default: a free one)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also write what the terminal showed to FILE, as SVG")
    parser.add_argument(
        "--keep", action=argparse.BooleanOptionalAction, help="keep the collector up at the end (default: only in a terminal)"
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.steps < 1:
        print(f"holter demo: --steps {arguments.steps}: at least one", file=sys.stderr)
        return 2
    if importlib.util.find_spec("torch") is None:
        print("holter demo trains a real model and needs torch: pip install torch, or `make demo` in a checkout.", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # unwinds the stack: nothing is left running
    keep = sys.stdout.isatty() if arguments.keep is None else arguments.keep
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holter-demo-")))
        stack.callback(stop_all_that_use, folder / "agent")
        screen = stack.enter_context(Screen(picture=arguments.picture))
        return Demo(arguments, folder, screen, stack).play(keep=keep)


class Demo:
    """One showing: the collector and the receiver, then the patient, then what came of it."""

    def __init__(self, arguments: argparse.Namespace, folder: Path, screen: Screen, stack: ExitStack) -> None:
        self.arguments, self.folder, self.screen, self.stack = arguments, folder, screen, stack
        self.port = arguments.port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = stack.enter_context(httpx.Client(base_url=f"{self.url}/api/v1", timeout=5.0, trust_env=False))
        self.receiver = stack.enter_context(Receiver())
        self.seen: set[str] = set()
        self.last_step = -1
        self.messages = 0

    def play(self, *, keep: bool) -> int:
        started = time.monotonic()
        collector = self._collector()
        if not self._ready(collector):
            self.screen.say(f"The collector did not come up:\n{(self.folder / 'collector.log').read_text()[-2000:]}", "red")
            return 1
        self.screen.say(f"collector  {self.url}   data in {self.folder}")
        patient = self._patient()
        self.screen.say(
            f"patient    {RANKS} gloo ranks on sonnets.txt, {self.arguments.steps} steps, poisoned at {self.arguments.poison_at}\n"
        )
        self._watch(patient)
        if patient.wait():
            self.screen.say(f"The training itself failed:\n{(self.folder / 'patient.log').read_text()[-2000:]}", "red")
            return 1
        self._wait_for_message()
        self._farewell(time.monotonic() - started)
        if keep:
            self._stay(collector)
        return 0 if self.messages or self.arguments.poison_at >= self.arguments.steps else 1

    def _collector(self) -> subprocess.Popen[bytes]:
        environment = {"HOLTER_SLACK_WEBHOOK": self.receiver.url, "HOLTER_ALLOW_PRIVATE_RECEIVERS": "1"}
        command = ("serve", "--port", str(self.port), "--data", str(self.folder / "data"))
        process = python("holter.cli", *command, environment=environment, log=self.folder / "collector.log")
        self.stack.callback(stop, process)
        # Registered after the collector, so it runs before: the node agent ships its last frames while there is somebody to take them.
        self.stack.callback(stop_all_that_use, self.folder / "agent")
        return process

    def _ready(self, collector: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and collector.poll() is None:
            try:
                if self.http.get(f"{self.url}/readyz").is_success:
                    return True
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        return False

    def _patient(self) -> subprocess.Popen[bytes]:
        environment = {"HOLTER_URL": self.url, "HOLTER_DIR": str(self.folder / "agent"), "OMP_NUM_THREADS": "1"}
        torchrun = ("--standalone", "--nproc-per-node", str(RANKS), "-m", "holter_monitor.demo.train")
        length = ("--steps", str(self.arguments.steps), "--poison-at", str(self.arguments.poison_at))
        process = python("torch.distributed.run", *torchrun, *length, environment=environment, log=self.folder / "patient.log")
        self.stack.callback(stop, process)
        return process

    def _watch(self, patient: subprocess.Popen[bytes]) -> None:
        while patient.poll() is None:
            self._look()
            time.sleep(0.3)

    def _wait_for_message(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        poisoned = self.arguments.poison_at < self.arguments.steps
        while time.monotonic() < deadline and (self.last_step < self.arguments.steps - 1 or (poisoned and not self.messages)):
            self._look()
            time.sleep(0.3)

    def _look(self) -> None:
        """Show what is new: steps, incidents, messages. A collector that is away for a moment is asked again at the next look."""
        try:
            self._look_at_steps()
            for incident in self._items("/incidents"):
                if incident["id"] not in self.seen:
                    self.seen.add(incident["id"])
                    self.screen.incident(incident)
        except httpx.TransportError:
            return
        finally:
            self._look_at_messages()

    def _look_at_steps(self) -> None:
        runs = self._items("/runs")
        if not runs:
            return
        path, first = f"/runs/{runs[0]['id']}/series", self.last_step + 1
        loss = self._series(path, "loss", first, None)
        if not loss:
            return
        # The newest step may still lack a rank or a metric: it is shown at the next look, or at the end.
        last = max(loss) if max(loss) == self.arguments.steps - 1 else max(loss) - 1
        others = {metric: self._series(path, metric, first, last) for metric in SHOWN}
        for step in (step for step in loss if step <= last):
            self.screen.step(step, {"loss": loss[step], **{metric: found.get(step) for metric, found in others.items()}})
        self.last_step = max(self.last_step, last)

    def _series(self, path: str, metric: str, first: int, last: int | None) -> dict[int, float | None]:
        """The mean over ranks by step."""
        query: dict[str, str | int] = {
            "metric": metric,
            "from_step": first,
            "max_points": 2000,
            **({} if last is None else {"to_step": last}),
        }
        series = self.http.get(path, params=query).json()
        pairs = zip(series.get("step", []), series.get("value", []), strict=False)
        return {step: value if isinstance(value, int | float) else None for step, value in pairs}

    def _look_at_messages(self) -> None:
        while True:
            try:
                message = self.receiver.messages.get_nowait()
            except Empty:
                return
            self.messages += 1
            self.screen.message(message)

    def _items(self, path: str, query: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        answer = self.http.get(path, params=query or {})
        return list(answer.json().get("items", [])) if answer.is_success else []

    def _farewell(self, seconds: float) -> None:
        runs = self._items("/runs")
        where = runs[0]["url"] if runs else self.url
        self.screen.say(
            f"\n{self.last_step + 1} steps watched, {len(self.seen)} incident(s), {self.messages} message(s), {seconds:.0f} s in all."
        )
        self.screen.say(f"The run:   {where}")
        self.screen.say("Try next:  holter serve                    and in your train.py:  run = holter.init(project=…)")
        self.screen.say("           holter runs, holter incidents                          run.step(step, loss=loss, …)")
        self.screen.say("           holter scan your-last-run.csv                          run.finish()")

    def _stay(self, collector: subprocess.Popen[bytes]) -> None:
        self.screen.say("The collector stays up until Ctrl-C.", "dim")
        try:
            collector.wait()
        except KeyboardInterrupt:
            self.screen.say("bye")
