"""Induced causes in real processes: each fault is done to a real two-rank training on a real collector; is the right cause ranked first?

    python benchmarks/induced_causes.py [--only NAME …]

Two processes train a small network (`induced/training.py`), watched by the real SDK, node agent and `holter serve`. Then something really happens to
them: a signal, a leak, a poisoned batch, a throttled file system. One line a fault: the incidents that somebody is told of (those that another one
explains are in brackets), and the first cause of the first of them. Right is: one told, and its first cause is what was done.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).resolve().parent
CARD = "utilization 97,memory_used 1000000000,temperature {t},power 650000,sm_clock {c},sm_clock_max 1980,memory_clock 2619,throttle {r},nvlink_errors 1"


@dataclass
class Scene:
    """Where a fault is done: the ranks' processes and the files that play the disk and the driver."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    ranks: list[subprocess.Popen[bytes]] = field(default_factory=list)
    others: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def data(self) -> Path:
        return self.folder / "mounted" / "data"

    def mount(self) -> None:
        """The throttled file system of our own."""
        (self.folder / "disk").mkdir()
        (self.folder / "mounted").mkdir()
        (self.folder / "disk" / "data").write_bytes(os.urandom(6_200_000))
        words = [sys.executable, str(HERE / "induced" / "slowfs.py"), str(self.folder / "disk"), str(self.folder / "mounted"), "14000000"]
        self.others.append(subprocess.Popen(words, stderr=subprocess.DEVNULL))
        for _ in range(100):
            if self.data.is_file():
                return
            time.sleep(0.1)
        raise RuntimeError("the FUSE mount did not come (is /dev/fuse here, and fusermount3?)")

    def driver(self) -> None:
        """A libnvidia-ml.so of our own; the sampler that reads it is the real one."""
        source = HERE.parent / "tests" / "agent" / "nvml" / "fake_nvml.c"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(self.folder / "libnvidia-ml.so.1"), str(source)], check=True)
        self.environment |= {"LD_LIBRARY_PATH": str(self.folder), "FAKE_NVML": str(self.folder / "cards")}
        self.cards()

    def cards(self, *, clock: int = 1980, reasons: int = 0, celsius: int = 61, xid: int = 0) -> None:
        """What the second card says from now on; the first stays well."""
        lines = ["-1 cards 2"]
        for card, values in ((0, {"t": 61, "c": 1980, "r": 0}), (1, {"t": celsius, "c": clock, "r": reasons})):
            lines += [f"{card} {pair}" for pair in CARD.format(**values).split(",")]
        lines += [f"1 xid {xid}", "1 xid_count 1"] if xid else []
        (self.folder / "new").write_text("\n".join(lines) + "\n")
        (self.folder / "new").replace(self.folder / "cards")


def hog(scene: Scene) -> None:
    """Rank 1 and six busy processes on the same core."""
    core = {max(os.sched_getaffinity(0))}
    os.sched_setaffinity(scene.ranks[1].pid, core)
    busy = "import time\ne=time.time()+70\nwhile time.time()<e: pass"
    started = [subprocess.Popen([sys.executable, "-c", busy]) for _ in range(6)]
    scene.others += started
    for process in started:
        os.sched_setaffinity(process.pid, core)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is done, and what should be said about it."""

    what: str
    cause: str
    attempts: int = 1
    pause: float = 0.01
    steps: int = 1500
    seconds: float = 45.0
    """How long to wait for the incident, once it is done."""
    before: Callable[[Scene], Any] | None = None
    act: Callable[[Scene], Any] | None = None
    """What is done to the processes, some 1,000 steps in."""


FAULTS = {
    "killed": Fault(what="SIGKILL to rank 1", cause="killed", steps=4000, act=lambda scene: scene.ranks[1].send_signal(signal.SIGKILL)),
    "crash": Fault(what="rank 1 raises", cause="crash"),
    "stopped": Fault(
        what="SIGSTOP to rank 1", cause="frozen_rank", steps=4000, seconds=90, act=lambda scene: scene.ranks[1].send_signal(signal.SIGSTOP)
    ),
    "garbage_batch": Fault(what="two batches of scaled noise with random labels", cause="bad_batch"),
    "raised_learning_rate": Fault(what="learning rate x400", cause="changed_schedule"),
    "slow_loader": Fault(what="each batch takes three steps' time longer", cause="slow_loader", steps=2500),
    "slow_disk": Fault(
        what="the file system under the data (FUSE, our own) answers each read 40 ms later",
        cause="slow_storage",
        steps=2500,
        before=Scene.mount,
        act=lambda scene: (scene.folder / "disk" / ".throttle").write_text("0.04"),
    ),
    "full_disk": Fault(what="the file system of the checkpoints (FUSE, our own) is full", cause="full_disk", before=Scene.mount),
    "leak": Fault(what="rank 1 keeps 0.8 MB a step", cause="leak", steps=1800),
    "stalls": Fault(what="14 batches stall, in both attempts", cause="data_position", attempts=2, steps=900),
    "checkpoint_expired": Fault(what="every 100 steps, then no more", cause="checkpoint_late"),
    "cpu_hog": Fault(what="six busy processes on rank 1's core", cause="busy_cpu", steps=3000, act=hog),
    "throttled": Fault(
        what="NVML (a library of our own) says 1,200 MHz, thermal slowdown",
        cause="throttled_gpu",
        steps=5000,
        seconds=90,
        before=Scene.driver,
        act=lambda scene: scene.cards(clock=1200, reasons=0x40, celsius=91),
    ),
    "xid": Fault(
        what="NVML (a library of our own) raises XID 79",
        cause="faulty_gpu",
        steps=2500,
        before=Scene.driver,
        act=lambda scene: scene.cards(xid=79),
    ),
}


def free_port() -> int:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return int(it.getsockname()[1])


@dataclass(frozen=True)
class Outcome:
    told: str
    cause: str = "none"
    evidence: str = ""
    is_right: bool = False


def induce(name: str, url: str, folder: Path) -> Outcome:
    """Do it; what came of it."""
    fault, scene = FAULTS[name], Scene(folder / name)
    scene.folder.mkdir()
    scene.environment = {**os.environ, "HOLTER_URL": url, "HOLTER_DIR": str(scene.folder / "agent"), "OMP_NUM_THREADS": "1"}
    try:
        if fault.before is not None:
            fault.before(scene)
        for attempt in range(fault.attempts):
            train(name, scene, attempt)
            if fault.act is not None:
                wait_for_step(url, name, 1000)
                fault.act(scene)
            if attempt < fault.attempts - 1:
                for process in scene.ranks:
                    process.wait(120)
        return look(url, name, fault)
    except (httpx.HTTPError, subprocess.SubprocessError, RuntimeError) as error:
        return Outcome(f"not measured: {error}")
    finally:
        for process in [*scene.ranks, *scene.others]:
            process.kill()
            process.wait(10)
        if fault.before is Scene.mount:
            subprocess.run(["umount", "-l", str(scene.folder / "mounted")], check=False, stderr=subprocess.DEVNULL)


def train(name: str, scene: Scene, attempt: int) -> None:
    fault, port = FAULTS[name], free_port()
    words = [sys.executable, str(HERE / "induced" / "training.py"), str(port), name, str(fault.pause), str(fault.steps), str(scene.data)]
    facts = {"WORLD_SIZE": "2", "HOLTER_ATTEMPT": f"{name}-{attempt}"}
    environments = [scene.environment | facts | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    scene.ranks = [subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL) for environment in environments]


def ask(url: str, path: str, **parameters: Any) -> Any:
    return httpx.get(f"{url}/api/v1/{path}", params=parameters, trust_env=False, timeout=60).json()


def wait_for_step(url: str, name: str, step: int) -> None:
    ends = time.monotonic() + 90
    while time.monotonic() < ends:
        if any(run["name"] == name and (run["last_step"] or 0) >= step for run in ask(url, "runs")["items"]):
            return
        time.sleep(0.5)
    raise RuntimeError(f"step {step} was not reached in 90 s: the machine is too slow")


def look(url: str, name: str, fault: Fault) -> Outcome:
    """Wait until somebody would be told, and a little longer: what else there is to say, and whether it is said apart."""
    ends, settled = time.monotonic() + fault.seconds + fault.steps * fault.pause * 2, None
    while time.monotonic() < min(ends, settled or ends):
        runs = [run["id"] for run in ask(url, "runs")["items"] if run["name"] == name]
        found = [item for run in runs for item in ask(url, "incidents", run=run)["items"] if item["severity"] != "info"]
        told = [item for item in found if not item.get("parent")]
        if settled is None and any(cause_of(item)["cause"] == fault.cause for item in told):
            settled = time.monotonic() + 20
        time.sleep(0.5)
    told.sort(key=lambda item: item["created"])
    words = ", ".join([item["kind"] for item in told] + [f"({item['kind']})" for item in found if item.get("parent")])
    if not told:
        return Outcome(words or "none")
    first = cause_of(told[0])
    return Outcome(words, first["cause"], "; ".join(first["evidence"])[:200], len(told) == 1 and first["cause"] == fault.cause)


def cause_of(item: dict[str, Any]) -> dict[str, Any]:
    return item["causes"][0] if item["causes"] else {"cause": "none", "evidence": []}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=sorted(FAULTS), default=list(FAULTS))
    parser.add_argument("--at-once", type=int, default=2, help="faults that are done side by side")
    parser.add_argument("--verbose", action="store_true", help="every incident with its summary and causes")
    parser.add_argument("--keep", type=Path, help="an empty folder for the collector's data and the agents'; kept for a replay")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as text:
        folder, port = arguments.keep or Path(text), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "holter.cli", "serve", "--port", str(port), "--data", str(folder / "data")]
        serve = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=(folder / "stderr").open("w"), text=True)
        threading.Timer(900, serve.kill).start()
        assert serve.stdout is not None
        serve.stdout.readline()
        url, right = f"http://127.0.0.1:{port}", 0
        try:
            with ThreadPoolExecutor(arguments.at_once) as pool:
                jobs = {name: pool.submit(induce, name, url, folder) for name in arguments.only}
                for name, job in jobs.items():
                    it = job.result()
                    right += it.is_right
                    answer = "yes" if it.is_right else "NO"
                    print(f"| {name} | {FAULTS[name].what} | {it.told} | {it.cause} | {answer} | {it.evidence} |", flush=True)
            if arguments.verbose:
                for item in ask(url, "incidents", limit=100)["items"]:
                    print(*(item[key] for key in ("run_name", "kind", "severity", "state", "parent", "summary", "causes")), sep="\n    ")
        finally:
            serve.kill()
        print(f"right: {right} of {len(arguments.only)}; load average {os.getloadavg()[0]:.1f}", flush=True)
    os._exit(0)  # the timer


if __name__ == "__main__":
    raise SystemExit(main())
