"""Who this process is in the training: rank, world, node, mesh, attempt, as torchrun, Slurm, MPI or the caller say it."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_RANK = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
_WORLD = ("WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
_LOCAL = ("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID")
_NODE = ("HOLTER_NODE", "SLURMD_NODENAME", "NODE_NAME", "HOSTNAME")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One rank of one attempt. `mesh` maps an axis ("dp", "tp", "pp", "cp", "ep") to this rank's coordinate; `mesh_sizes` to its size."""

    rank: int
    world_size: int
    local_rank: int
    node: str
    attempt: str
    """Equal on all ranks that start together, new on every restart."""
    job: str
    """Equal over the restarts of one job; names a run that nobody named."""
    mesh: Mapping[str, int] = field(default_factory=dict)
    mesh_sizes: Mapping[str, int] = field(default_factory=dict)


def identify(environment: Mapping[str, str], mesh: Mapping[str, object] | None = None) -> Identity:
    """Never raises: what cannot be read falls back to a single process."""
    coordinates, sizes = _mesh(mesh or {})
    job, restart = _job(environment)
    return Identity(
        rank=rank_of(environment, default=0),
        world_size=max(1, _number(environment, _WORLD, 1)),
        local_rank=_number(environment, _LOCAL, 0),
        node=next((environment[key] for key in _NODE if environment.get(key)), "") or platform.node() or "node",
        attempt=environment.get("HOLTER_ATTEMPT") or f"{job}-{restart}",
        job=job,
        mesh=coordinates,
        mesh_sizes=sizes,
    )


def script_name(argv0: str) -> str:
    """What to call a run that nobody named."""
    stem = Path(argv0).stem
    return stem if stem and stem not in ("-c", "-m", "__main__") else "training"


def rank_of(environment: Mapping[str, str], *, default: int) -> int:
    """The rank among all of the job, as its launcher says; `default` where none does."""
    return _number(environment, _RANK, default)


def _number(environment: Mapping[str, str], keys: tuple[str, ...], default: int) -> int:
    for key in keys:
        text = environment.get(key, "")
        if text.lstrip("-").isdecimal():
            return int(text)
    return default


def _mesh(mesh: Mapping[str, object]) -> tuple[dict[str, int], dict[str, int]]:
    """`{"dp": (0, 4)}` is coordinate 0 of 4; `{"dp": 0}` a coordinate alone."""
    coordinates: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for axis, value in mesh.items():
        if isinstance(value, tuple | list) and len(value) == 2:
            coordinates[str(axis)], sizes[str(axis)] = int(value[0]), int(value[1])
        elif isinstance(value, int):
            coordinates[str(axis)] = value
    return coordinates, sizes


def _job(environment: Mapping[str, str]) -> tuple[str, str]:
    """`(job, restart)`: the job's identity, equal on all its nodes where the launcher gives one, and its restart count."""
    elastic = environment.get("TORCHELASTIC_RUN_ID", "")
    slurm = environment.get("SLURM_JOB_ID", "")
    restarts = f"{environment.get('SLURM_RESTART_COUNT', '0')}.{environment.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    if slurm:
        # A step is one srun: the same job may train twice, one after the other.
        return f"slurm-{slurm}", f"{environment.get('SLURM_STEP_ID', '0')}.{restarts}"
    if elastic and elastic != "none":
        return f"elastic-{elastic}", restarts
    pod = environment.get("JOB_COMPLETION_INDEX") and environment.get("JOB_NAME", "")
    if pod:
        return f"k8s-{pod}", restarts
    return _unnamed_job(environment), restarts


def _unnamed_job(environment: Mapping[str, str]) -> str:
    """A launcher without a job id: the ranks of one node share a parent; those of several nodes at least an address and an hour."""
    world = _number(environment, _WORLD, 1)
    if world <= 1:
        words = [str(os.getpid()), str(started(os.getpid()))]
    elif environment.get("LOCAL_WORLD_SIZE", str(world)) == str(world):
        words = [str(os.getppid()), str(started(os.getppid()))]
    else:
        hour = int(_started_wall(os.getppid()) // 3600)
        words = [environment.get("MASTER_ADDR", ""), environment.get("MASTER_PORT", ""), str(world), str(hour)]
        return _digest(words)
    return _digest([*words, platform.node(), _read(Path("/proc/sys/kernel/random/boot_id"))])


def _digest(words: list[str]) -> str:
    return hashlib.sha256("|".join(words).encode()).hexdigest()[:12]


def started(pid: int) -> int:
    """Clock ticks after boot at which `pid` started (field 22 of /proc/<pid>/stat); with the pid, a process's identity. 0 if unknown."""
    text = _read(Path(f"/proc/{pid}/stat"))
    fields = text.rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 else 0


def _started_wall(pid: int) -> float:
    try:
        uptime = float(_read(Path("/proc/uptime")).split()[0])
        age = uptime - started(pid) / os.sysconf("SC_CLK_TCK")
    except (IndexError, ValueError):
        age = 0.0
    return time.time() - age


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
