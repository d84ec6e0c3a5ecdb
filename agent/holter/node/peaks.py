"""What the GPUs of a node could do at most: dense BF16 FLOPs a second by model, for `mfu` where the user names no peak."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

PEAKS: Final = (
    ("GB200", 2500e12),
    ("B200", 2250e12),
    ("B100", 1750e12),
    ("H200", 989e12),
    ("H100 NVL", 835e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("H800", 989e12),
    ("H20", 148e12),
    ("A100", 312e12),
    ("A800", 312e12),
    ("L40S", 362e12),
    ("L40", 181e12),
    ("L4", 121e12),
    ("A40", 149.7e12),
    ("RTX A6000", 154.8e12),
    ("A10G", 70e12),
    ("A10", 125e12),
    ("A30", 165e12),
    ("RTX 4090", 165.2e12),
    ("RTX 3090", 71e12),
    ("V100", 125e12),
    ("T4", 65e12),
)
"""Model as the driver names it -> FLOPs a second, from NVIDIA's data sheets: tensor cores, no sparsity, FP32 accumulation; FP16 on Volta and
Turing, which have no BF16. The more particular name stands first."""
_DRIVER = Path("/proc/driver/nvidia/gpus")


def flops_ratio(meta: dict[str, Any], driver: Path = _DRIVER) -> float | None:
    """FLOPs of a token over FLOPs a second of this rank's hardware: `mfu` is tokens a second times this. None where either is unknown."""
    flops = meta.get("flops_per_token")
    peak = meta.get("peak_flops") or peak_of(model(int(meta.get("local_rank") or 0), driver))
    if not _is_positive(flops) or not _is_positive(peak):
        return None
    return float(flops) / float(peak)  # type: ignore[arg-type]


def peak_of(name: str) -> float | None:
    """The peak of a model by the driver's name; None for a model that the table lacks."""
    return next((peak for known, peak in PEAKS if re.search(rf"\b{re.escape(known)}\b", name, re.I)), None)


def model(index: int, driver: Path = _DRIVER) -> str:
    """The model of a GPU by the driver's files: asking the driver's library could hang."""
    found = sorted(driver.glob("*/information"))
    try:
        text = found[min(index, len(found) - 1)].read_text() if found else ""
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("Model:")), "")


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and value > 0
