"""The node itself: processor, memory, disks, network; from `psutil`, `/proc` and `/sys`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import psutil

from holter.samplers import NODE, Place, Sample

_VIRTUAL = frozenset({"tmpfs", "devtmpfs", "squashfs", "overlay", "proc", "sysfs", "cgroup", "cgroup2", "autofs"})
_INFINIBAND = Path("/sys/class/infiniband")
_PRESSURE = Path("/proc/pressure/io")
_INFINIBAND_WORD = 4
"""The counters count 32-bit words (Linux, Documentation/ABI/stable/sysfs-class-infiniband)."""


class Host:
    """Counters become rates against the look before; the first look has none."""

    name: ClassVar[str] = "host"
    every_seconds: ClassVar[float] = 5.0

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, float]] = {}
        psutil.cpu_times_percent(interval=None)

    def sample(self, places: Sequence[Place]) -> Sample:
        del places
        found: dict[str, float] = {}
        for part in (self._processor, self._memory, self._disks, self._pressure, self._network, self._infiniband):
            try:
                found.update(part())
            except (OSError, psutil.Error, AttributeError, ValueError):
                # One /proc file that a container hides must not cost the rest.
                continue
        return Sample(values={NODE: found})

    def _processor(self) -> dict[str, float]:
        times = psutil.cpu_times_percent(interval=None)
        found = {"host_cpu_ratio": 1 - (times.idle + getattr(times, "iowait", 0.0)) / 100, "host_load_1m": os.getloadavg()[0]}
        if hasattr(times, "steal"):
            found["host_cpu_steal_ratio"] = times.steal / 100
        return found

    def _memory(self) -> dict[str, float]:
        memory = psutil.virtual_memory()
        return {
            "host_memory_available_bytes": memory.available,
            "host_memory_total_bytes": memory.total,
            "host_page_cache_bytes": memory.cached,
            "host_swap_used_bytes": psutil.swap_memory().used,
        }

    def _disks(self) -> dict[str, float]:
        found: dict[str, float] = {}
        seen: set[str] = set()
        for partition in psutil.disk_partitions(all=False):
            if partition.fstype in _VIRTUAL or partition.device in seen:
                continue
            seen.add(partition.device)
            found[f"host_disk_free_bytes.{partition.mountpoint}"] = psutil.disk_usage(partition.mountpoint).free
        for device, counts in psutil.disk_io_counters(perdisk=True).items():
            if device.startswith(("loop", "ram", "zram")):
                continue
            reads = self._rate(f"{device}.reads", counts.read_count)
            busy = self._rate(f"{device}.read_time", counts.read_time / 1e3)
            self._put(found, f"host_disk_read_bytes_per_second.{device}", self._rate(f"{device}.read", counts.read_bytes))
            self._put(found, f"host_disk_write_bytes_per_second.{device}", self._rate(f"{device}.write", counts.write_bytes))
            if reads and busy is not None:
                found[f"host_disk_read_latency_seconds.{device}"] = busy / reads
        return found

    def _pressure(self) -> dict[str, float]:
        """The share of the time in which some process waited for I/O (Linux, Documentation/accounting/psi.rst): network and FUSE mounts too, which
        have no block device whose latency could be read."""
        if not _PRESSURE.exists():
            return {}
        found: dict[str, float] = {}
        microseconds = float(_PRESSURE.read_text().split("total=", 1)[1].split()[0])
        self._put(found, "host_io_pressure_ratio", self._rate("io.pressure", microseconds / 1e6))
        return found

    def _network(self) -> dict[str, float]:
        found: dict[str, float] = {}
        counts: Any = psutil.net_io_counters(nowrap=True)
        self._put(found, "host_network_receive_bytes_per_second", self._rate("net.receive", counts.bytes_recv))
        self._put(found, "host_network_transmit_bytes_per_second", self._rate("net.transmit", counts.bytes_sent))
        return found

    def _infiniband(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for word, counter in (("receive", "port_rcv_data"), ("transmit", "port_xmit_data")):
            files = list(_INFINIBAND.glob(f"*/ports/*/counters/{counter}"))
            if files:
                total = sum(int(file.read_text()) for file in files) * _INFINIBAND_WORD
                self._put(found, f"host_infiniband_{word}_bytes_per_second", self._rate(f"ib.{word}", total))
        return found

    def _rate(self, key: str, total: float) -> float | None:
        """Per second since the look before; None at the first look, and when a counter was reset."""
        now = time.monotonic()
        before = self._before.get(key)
        self._before[key] = (now, total)
        if before is None or total < before[1] or now <= before[0]:
            return None
        return (total - before[1]) / (now - before[0])

    @staticmethod
    def _put(found: dict[str, float], name: str, value: float | None) -> None:
        if value is not None:
            found[name] = value
