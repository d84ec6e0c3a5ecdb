"""`holter.init`: makes the ring, sees to a node agent, gives the `Run`. Whatever fails, the training gets a run that records nothing."""

from __future__ import annotations

import faulthandler
import logging
import os
import platform
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from holter.checkpoints.plan import read as read_plan
from holter.errors import HolterError
from holter.identity import Identity, identify, script_name, started
from holter.recorder import Recorder
from holter.ring import Ring, Word
from holter.run import Run
from holter.settings import Settings, private_folder

_log = logging.getLogger("holter")
STALE_NS = 5_000_000_000
"""An agent that did not look at the ring for so long is taken for dead."""
MAX_STARTS = 3
STARTS_WINDOW_NS = 600_000_000_000


def init(
    project: str | None = None,
    name: str | None = None,
    *,
    mesh: Mapping[str, object] | None = None,
    config: Mapping[str, object] | None = None,
    flops_per_token: float | None = None,
    peak_flops: float | None = None,
    reference: str | None = None,
    checkpoints: str | Mapping[str, object] | None = None,
    url: str | None = None,
    token: str | None = None,
    directory: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Run:
    """Begin to record this rank. Never raises and never waits for the network.

    `mesh` gives this rank's place: `{"dp": (0, 4), "tp": (1, 2)}` is coordinate 0 of 4 and 1 of 2. `flops_per_token` (and `peak_flops`
    of one accelerator, where the table of known ones lacks it) give `mfu`. `reference` names a run to compare with. `checkpoints` is
    the folder or the address of the place where they are kept, or `{"folder": …, "copy": …, "every": "2h", "keep": 3, "complete": …, "check": …}`
    (else HOLTER_CHECKPOINTS and HOLTER_CHECKPOINT_COPY, …_EVERY, …): the node agent watches it, not this process. Everything else is
    read from the environment: HOLTER_URL, HOLTER_TOKEN, HOLTER_TOKEN_FILE, HOLTER_PROJECT, HOLTER_RUN, HOLTER_ATTEMPT, HOLTER_DIR,
    HOLTER_NODE, HOLTER_DISABLED.
    """
    words = os.environ if environment is None else environment
    try:
        settings = Settings.read(words, project=project, run=name, url=url, token=token, directory=directory)
        if settings.disabled or _is_imported_by_a_child():
            return Run(Recorder(None, 0))
        who = identify(words, mesh)
        about = {"config": dict(config or {}), "flops_per_token": flops_per_token, "peak_flops": peak_flops, "reference": reference}
        about["checkpoints"] = _checkpoints(words, checkpoints) if who.rank == 0 else None
        ring, folder = _make_ring(settings, _meta(settings, who, about, words), who)
        _allow_stacks(ring, words)
        watch = AgentWatch(settings, folder, ring)
        watch.start()
        return Run(Recorder(ring, who.rank, watch.look), (who.mesh, who.mesh_sizes), who.world_size)
    except HolterError as error:
        _log.warning("%s. This run is not recorded; the training is not affected", error)
    except Exception as error:  # noqa: BLE001  never raise into a training script
        _log.warning("no recording (%s: %s); the training is not affected", type(error).__name__, error)
    return Run(Recorder(None, 0))


def _is_imported_by_a_child() -> bool:
    """A spawned dataloader worker imports the training script anew: an unguarded `holter.init` in it must not make a second rank."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and bool(getattr(process.current_process(), "_inheriting", False))


def _checkpoints(environment: Mapping[str, str], given: str | Mapping[str, object] | None) -> dict[str, Any] | None:
    """A plan that cannot be read costs the watching of checkpoints, not the recording of the run."""
    try:
        plan = read_plan(environment, given)
    except HolterError as error:
        _log.warning("%s. The checkpoints are not watched; the training is not affected", error)
        return None
    return None if plan is None else asdict(plan)


def _meta(settings: Settings, who: Identity, about: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    return {
        "project": settings.project,
        "name": settings.run or f"{script_name(sys.argv[0] if sys.argv else '')}-{who.job}",
        "attempt": who.attempt,
        "rank": who.rank,
        "local_rank": who.local_rank,
        "world_size": who.world_size,
        "node": who.node,
        "host": platform.node(),
        "pid": os.getpid(),
        "mesh": dict(who.mesh),
        "mesh_sizes": dict(who.mesh_sizes),
        "visible_gpus": environment.get("CUDA_VISIBLE_DEVICES"),
        "stack_signal": environment.get("HOLTER_STACK_SIGNAL"),
        "flight_recorder_pipe": _flight_recorder_pipe(who, environment),
        "flight_recorder": {"file": _flight_recorder_file(who, environment), "since": time.time()},
        "versions": _versions(),
        **about,
    }


def _flight_recorder_pipe(who: Identity, environment: Mapping[str, str]) -> str | None:
    stem = environment.get("TORCH_NCCL_DEBUG_INFO_PIPE_FILE")
    return f"{stem}{who.rank}.pipe" if stem else None


def _flight_recorder_file(who: Identity, environment: Mapping[str, str]) -> str:
    """Where PyTorch writes the dump of its flight recorder: these two names, else this default (2.13)."""
    stem = environment.get("TORCH_FR_DUMP_TEMP_FILE") or environment.get("TORCH_NCCL_DEBUG_INFO_TEMP_FILE")
    cache = environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.abspath(f"{stem or os.path.join(cache, 'torch', 'comm_lib_trace_rank_')}{who.rank}")


def _allow_stacks(ring: Ring, environment: Mapping[str, str]) -> None:
    """Only where the operator named a signal: this package installs no signal handler of its own accord."""
    number = getattr(signal, environment.get("HOLTER_STACK_SIGNAL", ""), None)
    if isinstance(number, signal.Signals):
        file = ring.path.with_suffix(".stacks").open("w", encoding="utf-8")
        # Not chained: the default action of these signals is to end the process.
        faulthandler.register(number, file=file, all_threads=False, chain=False)
        _stack_files.append(file)


_stack_files: list[object] = []
"""Kept open: `faulthandler` holds the descriptor, not the file."""


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    # What is already imported, not what is installed: importing torch to ask its version would cost seconds.
    for name in ("torch", "transformers", "lightning", "deepspeed", "accelerate", "numpy"):
        version = getattr(sys.modules.get(name), "__version__", None)
        if version is not None:
            found[name] = str(version)
    return found


def _make_ring(settings: Settings, meta: dict[str, Any], who: Identity) -> tuple[Ring, Path]:
    process = (os.getpid(), started(os.getpid()))
    name = f"{process[0]}-{who.rank}-{os.urandom(4).hex()}"
    problem: OSError | None = None
    for folder in settings.ring_folders():
        try:
            return Ring.create(private_folder(folder), name, meta, process, time.monotonic_ns()), folder
        except OSError as error:
            problem = error
    raise problem or OSError("no folder for the ring")


class AgentWatch:
    """Sees from inside `step`, about once a second, that a node agent looks at the ring; starts one when none does, at most three times in
    ten minutes."""

    def __init__(self, settings: Settings, folder: Path, ring: Ring) -> None:
        self._settings, self._folder, self._ring = settings, folder, ring
        self._starts: list[int] = []

    def start(self) -> None:
        now = time.monotonic_ns()
        self._starts = [at for at in self._starts if now - at < STARTS_WINDOW_NS]
        if len(self._starts) >= MAX_STARTS:
            return
        from holter.launch import launch

        self._starts.append(now)
        try:
            launch(self._settings, self._folder)
        except OSError as error:
            # The rows wait in the ring; a service (`holter agent`) or another rank may still read them.
            _log.warning("no node agent could be started (%s); the training is not affected", error)

    def look(self, now: int) -> None:
        seen = max(self._ring.words[Word.BEAT], self._ring.words[Word.CLOCK])
        last = self._starts[-1] if self._starts else 0
        if now - max(seen, last) > STALE_NS:
            self.start()
