"""The GPUs of this node before they have anything to do: all there, none slowed down, hot, in use, or with memory that fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from holter_monitor.preflight.check import Check, shown

HOT_CELSIUS = 80.0
IN_USE_BYTES = 1 << 30
"""A context of the driver takes some hundred MiB; more is a process that was left over."""


def look(expected: int | None) -> Iterator[Check]:
    import pynvml

    try:
        pynvml.nvmlInit()
        count = int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError as error:
        yield Check(
            what="GPUs",
            mark="fail" if expected else "note",
            found=f"NVML does not answer ({error})",
            remedy="install the driver" if expected else "",
        )
        return
    if expected is not None and count != expected:
        yield Check(what="GPUs", mark="fail", found=f"{count} of {expected}", remedy="a card fell off the bus: drain the node and reset it")
    try:
        cards = [_card(pynvml, index) for index in range(count)]
    finally:
        pynvml.nvmlShutdown()
    fastest = max((card.get("clock", 0.0) for card in cards), default=0.0)
    for index, card in enumerate(cards):
        yield from _judged(f"GPU {index}", card, fastest)


def _card(nvml: Any, index: int) -> dict[str, Any]:
    """What the card tells; what it cannot tell is absent."""
    told: dict[str, Any] = {}

    def ask(name: str, question: Any) -> None:
        with contextlib.suppress(nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NoPermission):
            told[name] = question()

    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        ask("reasons", lambda: int(nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)))
        if "reasons" not in told:  # drivers before 535 know the same mask by its old name
            ask("reasons", lambda: int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)))
        ask("celsius", lambda: float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)))
        ask("clock", lambda: float(nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)))
        ask("used", lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).used))
        ask(
            "errors", lambda: int(nvml.nvmlDeviceGetTotalEccErrors(handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC))
        )
        ask("rows", lambda: nvml.nvmlDeviceGetRemappedRows(handle))
    except nvml.NVMLError as error:
        told["lost"] = str(error)
    return told


def _judged(what: str, card: dict[str, Any], fastest: float) -> Iterator[Check]:
    import pynvml as nvml

    slowed = {
        nvml.nvmlClocksThrottleReasonHwSlowdown: "hardware slowdown",
        nvml.nvmlClocksThrottleReasonSwThermalSlowdown: "software thermal slowdown",
        nvml.nvmlClocksThrottleReasonHwThermalSlowdown: "hardware thermal slowdown",
        nvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "power brake",
    }
    reasons = [word for bit, word in slowed.items() if card.get("reasons", 0) & bit]
    _, _, pending, failed = card.get("rows", (0, 0, 0, 0))
    faults = [
        (f"does not answer ({card.get('lost')})", "drain the node and reset it", "lost" in card),
        (", ".join(reasons), "check cooling and power, then run the vendor's diagnosis", bool(reasons)),
        (f"{card.get('errors')} uncorrected ECC errors", "reset it; if they come back, have it replaced", bool(card.get("errors"))),
        ("memory rows could not be remapped", "have it replaced", bool(failed)),
        ("a remapping of memory rows waits for a reset", "reset it before the launch", bool(pending)),
    ]
    bad = [(found, remedy) for found, remedy, is_so in faults if is_so]
    for found, remedy in bad:
        yield Check(what=what, mark="fail", found=found, remedy=remedy)
    notes = [
        (f"{card.get('celsius', 0):.0f} °C before any work", "check cooling", card.get("celsius", 0.0) > HOT_CELSIUS),
        (f"{shown(card.get('used', 0))} in use", "end what was left over", card.get("used", 0) > IN_USE_BYTES),
        (
            f"clock at most {card.get('clock', 0):.0f} MHz, others {fastest:.0f}",
            "look for a limit of the clock",
            0 < card.get("clock", 0) < fastest,
        ),
    ]
    odd = [(found, remedy) for found, remedy, is_so in notes if is_so]
    for found, remedy in odd:
        yield Check(what=what, mark="note", found=found, remedy=remedy)
    if not bad and not odd:
        known = f", {card['celsius']:.0f} °C" if "celsius" in card else ""
        yield Check(what=what, mark="ok", found=f"not slowed down{known}, no memory errors" if "reasons" in card else f"answers{known}")
