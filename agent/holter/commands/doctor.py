"""Says whether a training started here would be recorded, and what is missing where it would not.

Looks at the settings, the folders of rings and spool, the hot path, the node agent, the collector and the token, the GPUs, and at what may be
read when a rank hangs or dies. Changes nothing. Exit status 0: all well; 1: something that matters is missing; 2: settings that cannot be used.
"""

from __future__ import annotations

import argparse
import email.utils
import fcntl
import importlib.util
import json
import os
import platform
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from holter.errors import HolterError
from holter.launch import LOCK
from holter.ring import RING_BYTES
from holter.settings import Settings

Mark = Literal["ok", "note", "fail"]
_SIGNS = {"ok": "✓", "note": "·", "fail": "✗"}
_MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs"})
_SKEW_SECONDS = 5.0


@dataclass(frozen=True)
class Check:
    """One thing looked at. `fail`: the training would not be recorded, or not arrive; `note`: something would be less."""

    what: str
    mark: Mark
    found: str
    remedy: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="the collector (default: HOLTER_URL, else http://127.0.0.1:8787)")
    parser.add_argument("--json", action="store_true", help="print a JSON array of the checks")


def run(arguments: argparse.Namespace) -> int:
    try:
        settings = Settings.read(os.environ, url=arguments.url)
    except HolterError as error:
        print(f"holter doctor: {error}", file=sys.stderr)
        return 2
    checks = [check for look in LOOKS for check in look(settings)]
    if arguments.json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        width = max(len(check.what) for check in checks)
        for check in checks:
            print(
                f"{_SIGNS[check.mark]} {check.what:<{width}}  {check.found}"
                + (f"\n  {'':<{width}}  → {check.remedy}" if check.remedy else "")
            )
    return 1 if any(check.mark == "fail" for check in checks) else 0


def _switch(settings: Settings) -> Iterator[Check]:
    if settings.disabled:
        yield Check("switch", "fail", "HOLTER_DISABLED is set: nothing is recorded", "unset HOLTER_DISABLED")


def _rings(settings: Settings) -> Iterator[Check]:
    problem = ""
    for folder in settings.ring_folders():
        place = _existing(folder)
        free = shutil.disk_usage(place).free
        if not os.access(place, os.W_OK):
            problem = f"{place} cannot be written"
        elif free < 2 * RING_BYTES:
            problem = f"{place} has {free / 1e6:.1f} MB free, a rank needs {RING_BYTES / 1e6:.1f}"
        elif _file_system(place) in _MEMORY_FILE_SYSTEMS:
            yield Check("rings", "ok", f"{folder}, in memory, room for {free // RING_BYTES} ranks")
            return
        else:
            remedy = "leave HOLTER_DIR empty, or let it lie in /dev/shm: on a disk a step can wait for the disk"
            yield Check("rings", "note", f"{folder}, on a disk ({_file_system(place)})", remedy)
            return
    yield Check("rings", "fail", problem, "give the container shared memory (docker run --shm-size=1g) or set HOLTER_DIR")


def _spool(settings: Settings) -> Iterator[Check]:
    place = _existing(settings.spool_folder())
    if not os.access(place, os.W_OK):
        yield Check("spool", "note", f"{place} cannot be written: frames wait in memory only", "set HOLTER_DIR to a folder on a disk")
        return
    waiting = sum(path.stat().st_size for path in settings.spool_folder().glob("*/*.seg"))
    found = f"{settings.spool_folder()}, {shutil.disk_usage(place).free / 1e9:.1f} GB free"
    yield Check("spool", "ok", found + (f", {waiting / 1e6:.1f} MB wait for the collector" if waiting else ""))


def _hot_path(_settings: Settings) -> Iterator[Check]:
    if importlib.util.find_spec("holter._hot") is not None:
        yield Check("hot path", "ok", "in C")
    else:
        yield Check(
            "hot path", "note", "in Python: some 10 µs more a step", "install a C compiler, then pip install --force-reinstall holter"
        )


def _agent(settings: Settings) -> Iterator[Check]:
    for folder in settings.ring_folders():
        if (folder / LOCK).exists():
            rings = len(list(folder.glob("*.ring")))
            state = f"runs, {rings} rings" if _is_locked(folder / LOCK) else "none runs; the next training starts one"
            yield Check("node agent", "ok" if "runs," in state or not rings else "note", f"{state} (log: {folder / 'agent.log'})")
            return
    yield Check("node agent", "ok", "none runs; the first training starts one")


def _is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _collector(settings: Settings) -> Iterator[Check]:
    token = settings.current_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{settings.url.rstrip('/')}/api/v1/runs", headers=headers)  # noqa: S310  the scheme was checked
    started = time.time()
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            status, date = answer.status, answer.headers.get("Date", "")
    except urllib.error.HTTPError as error:
        status, date = error.code, error.headers.get("Date", "")
    except (OSError, ValueError) as error:
        yield Check(
            "collector",
            "fail",
            f"{settings.url}: {error}",
            "start it (holter serve) or set HOLTER_URL; until then frames wait in the spool",
        )
        return
    if status in (401, 403):
        yield Check("token", "fail", f"{settings.url} refuses it (status {status})", "set HOLTER_TOKEN or HOLTER_TOKEN_FILE (holter token)")
    elif status != 200:
        yield Check("collector", "fail", f"{settings.url} answers {status}", "is another service listening there?")
    else:
        yield Check("collector", "ok", f"{settings.url} answers" + (", the token is accepted" if token else ""))
    yield from _clock(date, started)


def _clock(date: str, now: float) -> Iterator[Check]:
    try:
        skew = email.utils.parsedate_to_datetime(date).timestamp() - now
    except (ValueError, TypeError):
        return
    if abs(skew) > _SKEW_SECONDS:
        yield Check(
            "clock", "note", f"{abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} the collector's", "set the clock (chrony, ntpd)"
        )


def _gpus(_settings: Settings) -> Iterator[Check]:
    import pynvml

    try:
        pynvml.nvmlInit()
        yield Check("NVIDIA GPUs", "ok", f"{pynvml.nvmlDeviceGetCount()}, driver {pynvml.nvmlSystemGetDriverVersion()}")
    except pynvml.NVMLError as error:
        yield Check("NVIDIA GPUs", "note", f"none ({error})")


def _witness(_settings: Settings) -> Iterator[Check]:
    """What can be told of a rank that hangs or dies."""
    program = shutil.which("py-spy", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    scope = _read("/proc/sys/kernel/yama/ptrace_scope").strip() or "0"
    if program is None:
        yield Check(
            "stacks of a hang",
            "note",
            "no py-spy: only the kernel's state is told",
            "pip install 'holter[stacks]', or set HOLTER_STACK_SIGNAL",
        )
    elif scope != "0" and os.geteuid() != 0:
        remedy = "sysctl kernel.yama.ptrace_scope=0, or set HOLTER_STACK_SIGNAL=SIGUSR2"
        yield Check("stacks of a hang", "note", f"py-spy may not look (ptrace_scope {scope})", remedy)
    else:
        yield Check("stacks of a hang", "ok", "by py-spy")
    release = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])
    if release >= (6, 15):
        yield Check("exit status of ranks", "ok", f"told by the kernel ({platform.release()})")
    else:
        yield Check("exit status of ranks", "note", f"Linux {platform.release()} tells it only while the process is a zombie (6.15 always)")


LOOKS: tuple[Callable[[Settings], Iterator[Check]], ...] = (_switch, _rings, _spool, _hot_path, _agent, _collector, _gpus, _witness)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _file_system(path: Path) -> str:
    """The type of the file system that holds `path`: the longest mount point that begins it."""
    best, kind = "", "unknown"
    for line in _read("/proc/mounts").splitlines():
        _, mount, found = line.split(" ")[:3]
        if len(mount) >= len(best) and (str(path.resolve()) + "/").startswith(mount.rstrip("/") + "/"):
            best, kind = mount, found
    return kind


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
