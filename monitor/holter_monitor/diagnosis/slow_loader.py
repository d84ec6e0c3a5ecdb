"""The loader itself cannot keep up: its workers do too much, wait for something that is no disk, or are too few."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, beside, given, grows, peaks, rises, says, stays, steady, waits_for_data, without

_WAITS = (
    waits_for_data,
    says("data_wait_share", lambda share: share > 0.5, "data wait explains {value:.0%} of the lost time"),
    says("share", lambda share: share > 0.2, "{value:.0%} of the step is data wait"),
    says("cause", lambda cause: cause == "data_wait", "its own data wait is what is long"),
)
"""A disk that answers says nothing against the loader where nobody waits for data."""
_IO, _CPU = "process_io_wait_ratio", "process_cpu_wait_ratio"

SLOW_LOADER = Cause(
    name="slow_loader",
    explains=("throughput_drop", "throughput_stalls", "throughput_decline", "data_stall", "straggler"),
    sentence="the data loader cannot keep up on {place}; it is not a disk that it waits for",
    action="look at what the loader's workers do (py-spy dump on one of them): tokenising, decompressing, a lock, a remote service; "
    "then give it more workers or prefetch",
    clues=(
        *(Clue(weight, look) for weight, look in zip((1.8, 1.5, 1.0, 1.0), _WAITS, strict=True)),
        Clue(2.0, given(_WAITS, stays(_IO, 0.1, "share of the time in which the ranks' processes wait for I/O"))),
        Clue(1.0, given(_WAITS, stays(_CPU, 0.2, "share in which they wait for a CPU"))),
        Clue(1.0, given(_WAITS, without(_IO, steady("host_disk_read_latency_seconds", 1.5, "disk read latency")))),
        Clue(
            1.0, given(_WAITS, without(_IO, stays("host_io_pressure_ratio", 0.1, "share in which some process of the node waits for I/O")))
        ),
        Clue(0.8, given(_WAITS, says("disk_read_latency_ratio", lambda ratio: ratio < 2, "disk read latency normal (x{value})"))),
        Clue(-4.0, grows(_IO, 0.15, "waits for I/O")),
        Clue(-2.0, grows(_CPU, 0.25, "waits for a CPU")),
        Clue(-2.5, without(_IO, peaks("host_io_pressure_ratio", 0.25, "share of the time in which processes wait for I/O"))),
        Clue(-2.5, without(_IO, rises("host_disk_read_latency_seconds", 3.0, "disk read latency", least=0.002))),
        Clue(-2.0, without(_IO, says("disk_read_latency_ratio", lambda ratio: ratio > 3, "disk read latency x{value}"))),
        Clue(-2.0, steady("data_wait_seconds", 1.3, "data wait")),
        Clue(-1.5, says("data_wait_share", lambda share: share < 0.2, "data wait explains only {value:.0%}")),
        Clue(-1.5, beside("step_locked_stalls", sentence="the same steps stalled in the attempt before")),
        Clue(-1.0, beside("memory_growth")),
    ),
)
