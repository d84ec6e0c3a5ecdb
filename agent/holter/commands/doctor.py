"""Says whether a training started here would be recorded, and what is missing where it would not.

Looks at the settings, the folders of rings and spool, the hot path, the node agent, the collector and the token, the clocks, the GPUs, and at
what may be read when a rank hangs or dies; with --data (where holter-monitor is installed) at a collector on this machine. Changes nothing.
Exit status 0: all well; 1: something that matters is missing; 2: settings that cannot be used.
"""

from __future__ import annotations

import argparse
import email.utils
import fcntl
import importlib
import importlib.util
import json
import os
import platform
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from holter import __version__
from holter.errors import HolterError
from holter.launch import LOCK
from holter.ring import RING_BYTES
from holter.settings import Settings

Mark = Literal["ok", "note", "fail"]
_SIGNS = {"ok": "✓", "note": "·", "fail": "✗"}
_MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs"})
_SKEW_SECONDS = 5.0
MAX_ANSWER_BYTES = 64 * 1024
_COLLECTORS = "holter_monitor.commands.doctor"


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
    collectors = _of_collectors()
    if collectors is not None:
        collectors.add_arguments(parser)


def _of_collectors() -> ModuleType | None:
    """The collector's own checks, where it is installed."""
    return importlib.import_module(_COLLECTORS) if importlib.util.find_spec(_COLLECTORS.partition(".")[0]) else None


def run(arguments: argparse.Namespace) -> int:
    if getattr(arguments, "data", None) is not None:
        collectors = importlib.import_module(_COLLECTORS)
        checks = [Check(*seen) for seen in collectors.look(arguments)]
    else:
        try:
            settings = Settings.read(os.environ, url=arguments.url)
        except HolterError as error:
            print(f"holter doctor: {error}", file=sys.stderr)
            return 2
        checks = [check for look in LOOKS for check in look(settings)]
    return _tell(checks, as_json=arguments.json)


def _tell(checks: Sequence[Check], *, as_json: bool) -> int:
    if as_json:
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


def _versions(_settings: Settings) -> Iterator[Check]:
    yield Check("versions", "ok", f"holter {__version__}, Python {platform.python_version()}, Linux {platform.release()}")


def _rings(settings: Settings) -> Iterator[Check]:
    problem = ""
    for folder in settings.ring_folders():
        place = _existing(folder)
        usage = shutil.disk_usage(place)
        free = usage.free
        if not os.access(place, os.W_OK):
            problem = f"{place} cannot be written"
        elif free < 2 * RING_BYTES:
            problem = f"{place} has {free / 1e6:.1f} MB free, a rank needs {RING_BYTES / 1e6:.1f}"
        elif _file_system(place) in _MEMORY_FILE_SYSTEMS:
            yield Check("rings", "ok", f"{folder}, in memory ({usage.total / 1e6:.0f} MB), room for {free // RING_BYTES} ranks")
            return
        else:
            remedy = "leave HOLTER_DIR empty, or let it lie in /dev/shm: on a disk a step can wait for the disk"
            yield Check("rings", "note", f"{folder}, on a disk ({_file_system(place)})", remedy)
            return
    yield Check("rings", "fail", problem, "give the container shared memory (docker run --shm-size=1g) or set HOLTER_DIR")


def _spool(settings: Settings) -> Iterator[Check]:
    from holter.node.segments import least_free

    place = _existing(settings.spool_folder())
    if not os.access(place, os.W_OK):
        yield Check("spool", "note", f"{place} cannot be written: frames wait in memory only", "set HOLTER_DIR to a folder on a disk")
        return
    usage = shutil.disk_usage(place)
    waiting = sum(path.stat().st_size for path in settings.spool_folder().glob("*/*.seg"))
    found = f"{settings.spool_folder()}, {usage.free / 1e9:.1f} GB free"
    found += f", {waiting / 1e6:.1f} MB wait for the collector" if waiting else ""
    if usage.free < least_free(usage.total):
        remedy = "make room: while the collector is away, what is more than 8 MiB is dropped and counted"
        yield Check("spool", "note", f"{found}: nearly full, frames wait in shared memory only", remedy)
    else:
        yield Check("spool", "ok", found)


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
    try:
        status, date, _ = _ask(settings, "/api/v1/runs")
    except (OSError, ValueError) as error:
        remedy = "start it (holter serve) or set HOLTER_URL; until then frames wait in the spool"
        yield Check("collector", "fail", f"{settings.url}: {error}", remedy)
        return
    if status in (401, 403):
        yield Check("token", "fail", f"{settings.url} refuses it (status {status})", "set HOLTER_TOKEN or HOLTER_TOKEN_FILE (holter token)")
    elif status != 200:
        yield Check("collector", "fail", f"{settings.url} answers {status}", "is another service listening there?")
    else:
        yield Check("collector", "ok", f"{settings.url} answers" + (", the token is accepted" if settings.current_token() else ""))
        yield from _collectors_parts(settings)
    yield from _clock(date, time.time())


def _ask(settings: Settings, path: str) -> tuple[int, str, bytes]:
    """`(status, Date, body)`. Raises `OSError`, `ValueError`."""
    token = settings.current_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(settings.url.rstrip("/") + path, headers=headers)  # noqa: S310  the scheme was checked
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            return answer.status, answer.headers.get("Date", ""), answer.read(MAX_ANSWER_BYTES)
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get("Date", ""), error.read(MAX_ANSWER_BYTES)


def _collectors_parts(settings: Settings) -> Iterator[Check]:
    """What the collector says of itself; a stranger, or a token that may only write, hears nothing."""
    try:
        said: dict[str, Any] = json.loads(_ask(settings, "/readyz")[2])
        parts, version = dict(said["parts"]), str(said["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    for part, state in parts.items():
        if state != "ok":
            yield Check(f"collector's {part}", "fail", str(state), "holter doctor --data … on its machine")
    if version != __version__:
        yield Check("collector's version", "note", f"{version}, ours is {__version__}", "bring both to the same version")


def _clock(date: str, now: float) -> Iterator[Check]:
    try:
        skew = email.utils.parsedate_to_datetime(date).timestamp() - now
    except (ValueError, TypeError):
        return
    if abs(skew) > _SKEW_SECONDS:
        found = f"{abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} the collector's"
        yield Check("clock", "note", found, "set the clock (chrony, ntpd)")
    else:
        yield Check("clock", "ok", f"as the collector's, to {_SKEW_SECONDS:.0f} s")


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


LOOKS: tuple[Callable[[Settings], Iterator[Check]], ...] = (
    _switch,
    _versions,
    _rings,
    _spool,
    _hot_path,
    _agent,
    _collector,
    _gpus,
    _witness,
)


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
