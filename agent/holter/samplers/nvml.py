"""NVIDIA GPUs through NVML. What a card cannot tell is absent, never zero; counters that never reset are turned into events when they grow."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pynvml

from holter.samplers import NODE, Place, Sample, SamplerAbsent

_MIB = 1024.0
_MHZ = 1e6
_NVLINKS = 18
_GROWTH = {
    "gpu_ecc_uncorrected_total": "uncorrected ECC errors",
    "gpu_remapped_rows_total": "remapped memory rows",
}
"""Counters whose growth is an event. Corrected errors and PCIe replays grow on healthy cards: they stay numbers."""


@dataclass
class Card:
    """One GPU: its handle, its names, the counters as last seen, and whether it has fallen off the bus."""

    index: int
    handle: Any
    uuid: str
    counters: dict[str, float] = field(default_factory=dict)
    is_lost: bool = False


class Nvml:
    """Opens NVML at the first look. A card that is lost is told once and left alone until NVML is opened again."""

    name: ClassVar[str] = "nvml"
    every_seconds: ClassVar[float] = 5.0

    def __init__(self) -> None:
        self._cards: list[Card] = []
        self._events: Any = None

    def sample(self, places: Sequence[Place]) -> Sample:
        """Raises `SamplerAbsent` without a driver, `pynvml.NVMLError` when NVML as a whole fails."""
        if not self._cards:
            self._open()
        sample = Sample()
        owners = {card.index: self._owners(card, places) for card in self._cards}
        for card in self._cards:
            if not card.is_lost:
                self._read(card, owners[card.index], sample)
        self._take_xids(owners, sample)
        return sample

    def _open(self) -> None:
        try:
            pynvml.nvmlInit()
        except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded) as error:
            raise SamplerAbsent(str(error)) from error
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            self._cards.append(Card(index, handle, str(pynvml.nvmlDeviceGetUUID(handle))))
        if not self._cards:
            raise SamplerAbsent("NVML knows no GPU")
        with contextlib.suppress(pynvml.NVMLError):
            events = pynvml.nvmlEventSetCreate()
            for card in self._cards:
                pynvml.nvmlDeviceRegisterEvents(card.handle, pynvml.nvmlEventTypeXidCriticalError, events)
            self._events = events

    def _owners(self, card: Card, places: Sequence[Place]) -> list[int]:
        """The processes of the ranks that compute on a card: by process where NVML sees the same process ids, else by the ranks' own numbering."""
        pids: set[int] = set()
        with contextlib.suppress(pynvml.NVMLError):
            pids = {process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(card.handle)}
        seen = [place.pid for place in places if place.pid in pids]
        return seen or [place.pid for place in places if _names(place, card)]

    def _read(self, card: Card, owners: list[int], sample: Sample) -> None:
        found: dict[str, float] = {}
        try:
            for reading in _READINGS:
                with contextlib.suppress(pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_NoPermission):
                    found.update(reading(card.handle))
        except (pynvml.NVMLError_GpuIsLost, pynvml.NVMLError_ResetRequired) as error:
            card.is_lost = True
            self._say(sample, owners, {"gpu": card.uuid, "xid": None, "text": f"GPU {card.index} fell off the bus ({error})"})
            return
        for name, text in _GROWTH.items():
            before, now = card.counters.get(name), found.get(name)
            if before is not None and now is not None and now > before:
                told = f"GPU {card.index}: {int(now - before)} more {text}, {int(now)} in all"
                self._say(sample, owners, {"gpu": card.uuid, "xid": None, "counter": name, "text": told})
            if now is not None:
                card.counters[name] = now
        for pid in owners:
            sample.values[pid] = dict(found)

    def _take_xids(self, owners: dict[int, list[int]], sample: Sample) -> None:
        """XID errors since the last look. Each is an event of its own: a gauge of the last XID cannot show the same one twice."""
        for _ in range(100):
            if self._events is None:
                return
            try:
                event = pynvml.nvmlEventSetWait_v2(self._events, 0)
            except pynvml.NVMLError_Timeout:
                return
            except pynvml.NVMLError:
                self._events = None
                return
            uuid = str(pynvml.nvmlDeviceGetUUID(event.device))
            card = next((card for card in self._cards if card.uuid == uuid), None)
            xid = int(event.eventData)
            # The number alone: what it means and what to do stands in the collector's catalogue, which is mended without touching a node.
            self._say(sample, owners.get(card.index, []) if card else [], {"gpu": uuid, "xid": xid, "text": f"XID {xid}"})

    def _say(self, sample: Sample, owners: list[int], attrs: dict[str, Any]) -> None:
        for pid in owners or [NODE]:
            sample.events.append(("gpu_error", pid, attrs))


def _names(place: Place, card: Card) -> bool:
    visible = place.visible_gpus
    if visible is None:
        return place.local_rank == card.index
    names = [name.strip() for name in visible.split(",") if name.strip()]
    # A launcher that gives each rank one GPU of its own leaves a list of one.
    name = names[place.local_rank] if place.local_rank < len(names) else (names[0] if len(names) == 1 else "")
    return name == str(card.index) or (name.startswith("GPU-") and card.uuid.startswith(name))


def _utilization(handle: Any) -> dict[str, float]:
    return {"gpu_utilization_ratio": pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100}


def _memory(handle: Any) -> dict[str, float]:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return {"gpu_memory_used_bytes": float(memory.used), "gpu_memory_total_bytes": float(memory.total)}


def _temperature(handle: Any) -> dict[str, float]:
    return {"gpu_temperature_celsius": float(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))}


def _power(handle: Any) -> dict[str, float]:
    return {"gpu_power_watts": pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3}


def _sm_clock(handle: Any) -> dict[str, float]:
    return {"gpu_sm_clock_hertz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM) * _MHZ}


def _sm_clock_max(handle: Any) -> dict[str, float]:
    return {"gpu_sm_clock_max_hertz": pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM) * _MHZ}


def _memory_clock(handle: Any) -> dict[str, float]:
    return {"gpu_memory_clock_hertz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM) * _MHZ}


def _throttle(handle: Any) -> dict[str, float]:
    try:
        return {"gpu_throttle_reasons": float(pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle))}
    except pynvml.NVMLError_FunctionNotFound:
        # Drivers before 535 know the same mask by its old name.
        return {"gpu_throttle_reasons": float(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))}


def _ecc(kind: int, name: str) -> Callable[[Any], dict[str, float]]:
    def read(handle: Any) -> dict[str, float]:
        return {name: float(pynvml.nvmlDeviceGetTotalEccErrors(handle, kind, pynvml.NVML_VOLATILE_ECC))}

    return read


def _remapped(handle: Any) -> dict[str, float]:
    corrected, uncorrected, _pending, _failed = pynvml.nvmlDeviceGetRemappedRows(handle)
    return {"gpu_remapped_rows_total": float(corrected + uncorrected)}


def _replays(handle: Any) -> dict[str, float]:
    return {"gpu_pcie_replays_total": float(pynvml.nvmlDeviceGetPcieReplayCounter(handle))}


def _pcie(counter: int, name: str) -> Callable[[Any], dict[str, float]]:
    def read(handle: Any) -> dict[str, float]:
        return {name: pynvml.nvmlDeviceGetPcieThroughput(handle, counter) * _MIB}

    return read


def _nvlink(handle: Any) -> dict[str, float]:
    total, is_known = 0, False
    for link in range(_NVLINKS):
        try:
            total += pynvml.nvmlDeviceGetNvLinkErrorCounter(handle, link, pynvml.NVML_NVLINK_ERROR_DL_CRC_FLIT)
            is_known = True
        except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_InvalidArgument):
            break
    return {"gpu_nvlink_errors_total": float(total)} if is_known else {}


_READINGS: tuple[Callable[[Any], dict[str, float]], ...] = (
    _utilization,
    _memory,
    _temperature,
    _power,
    _sm_clock,
    _sm_clock_max,
    _memory_clock,
    _throttle,
    _ecc(pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, "gpu_ecc_corrected_total"),
    _ecc(pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, "gpu_ecc_uncorrected_total"),
    _remapped,
    _replays,
    _pcie(pynvml.NVML_PCIE_UTIL_RX_BYTES, "gpu_pcie_receive_bytes_per_second"),
    _pcie(pynvml.NVML_PCIE_UTIL_TX_BYTES, "gpu_pcie_transmit_bytes_per_second"),
    _nvlink,
)
