"""A GPU lowers its clocks: heat, power, a brake from the board."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, beside, falls, kind_is, mentions, rises, says

THROTTLED_GPU = Cause(
    name="throttled_gpu",
    explains=("gpu_throttle", "straggler", "throughput_drop", "throughput_decline"),
    sentence="the GPU of {place} runs at reduced clocks",
    action="drain {nodes} at the next checkpoint, look at its cooling and power, run the vendor's diagnostics (dcgmi diag -r 3)",
    clues=(
        Clue(3.5, kind_is("gpu_throttle")),
        Clue(3.0, beside("gpu_throttle")),
        Clue(2.5, falls("gpu_sm_clock_hertz", 0.93, "SM clock")),
        Clue(2.5, says("clock_ratio", lambda ratio: ratio < 0.93, "SM clock at {value:.0%} of usual")),
        Clue(1.2, says("cause", lambda cause: cause == "throttle", "it slid into slowness as a GPU that heats up does")),
        Clue(1.0, rises("gpu_temperature_celsius", 1.1, "temperature")),
        Clue(1.0, mentions(lambda text: "thermal" in text or "power" in text, "the driver gives the reason", "reasons")),
        Clue(-3.0, says("clock_ratio", lambda ratio: ratio > 0.97, "SM clock normal ({value:.0%})")),
    ),
)
