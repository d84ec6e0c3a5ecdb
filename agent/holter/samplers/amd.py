"""AMD GPUs through `amdsmi`, where it is installed (`pip install holter[amd]`). Reads what every card has; the rest is absent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from holter.samplers import Place, Sample, SamplerAbsent


class Amd:
    """Never run on real hardware by this project: the calls follow amdsmi's documentation."""

    name: ClassVar[str] = "amd"
    every_seconds: ClassVar[float] = 5.0

    def __init__(self) -> None:
        self._cards: list[Any] = []
        self._smi: Any = None

    def sample(self, places: Sequence[Place]) -> Sample:
        """Raises `SamplerAbsent` without amdsmi, its driver or a card."""
        if not self._cards:
            self._open()
        found: dict[int, dict[str, float]] = {}
        for place in places:
            if place.local_rank < len(self._cards):
                found[place.pid] = self._read(self._cards[place.local_rank])
        return Sample(values=found)

    def _open(self) -> None:
        try:
            import amdsmi
        except (ImportError, OSError, KeyError) as error:
            raise SamplerAbsent("amdsmi is not installed") from error
        try:
            amdsmi.amdsmi_init()
            self._cards = list(amdsmi.amdsmi_get_processor_handles())
        except amdsmi.AmdSmiException as error:
            raise SamplerAbsent(str(error)) from error
        if not self._cards:
            raise SamplerAbsent("amdsmi knows no GPU")
        self._smi = amdsmi

    def _read(self, card: Any) -> dict[str, float]:
        smi = self._smi
        metrics = smi.amdsmi_get_gpu_metrics_info(card)
        memory = smi.AmdSmiMemoryType.VRAM
        found = {
            "gpu_utilization_ratio": _scaled(metrics.get("average_gfx_activity"), 0.01),
            "gpu_temperature_celsius": _scaled(metrics.get("temperature_hotspot"), 1.0),
            "gpu_power_watts": _scaled(metrics.get("average_socket_power"), 1.0),
            "gpu_sm_clock_hertz": _scaled(metrics.get("current_gfxclk"), 1e6),
            "gpu_memory_used_bytes": _scaled(smi.amdsmi_get_gpu_memory_usage(card, memory), 1.0),
            "gpu_memory_total_bytes": _scaled(smi.amdsmi_get_gpu_memory_total(card, memory), 1.0),
        }
        return {name: value for name, value in found.items() if value is not None}


def _scaled(value: Any, factor: float) -> float | None:
    """amdsmi says "N/A" or 65535 for what a card does not have."""
    return float(value) * factor if isinstance(value, int | float) and value != 65535 else None
