"""The storage under the data got slow: evicted from its fast tier, throttled, or shared with somebody loud."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import (
    Cause,
    Clue,
    beside,
    everywhere,
    grows,
    peaks,
    rises,
    says,
    stays,
    steady,
    waits_for_data,
    without,
)

_IO = "process_io_wait_ratio"
SLOW_STORAGE = Cause(
    name="slow_storage",
    explains=("throughput_drop", "throughput_stalls", "throughput_decline", "data_stall", "straggler", "disk_pressure"),
    sentence="the storage under the data is slow ({place} wait for it)",
    action="look at the read latency and hit rate of the data's file system; pin the data to the fast tier or copy it to local disk. "
    "Draining nodes will not help",
    clues=(
        Clue(4.0, grows(_IO, 0.15, "waits for I/O")),
        Clue(3.0, without(_IO, rises("host_disk_read_latency_seconds", 3.0, "disk read latency", least=0.002))),
        Clue(2.5, without(_IO, says("disk_read_latency_ratio", lambda ratio: ratio > 3, "disk read latency x{value}"))),
        Clue(2.5, without(_IO, says("latency_ratio", lambda ratio: ratio > 3, "disk read latency x{value}"))),
        Clue(2.5, without(_IO, peaks("host_io_pressure_ratio", 0.25, "share of the time in which processes of the node wait for I/O"))),
        Clue(1.5, waits_for_data),
        Clue(1.5, says("data_wait_share", lambda share: share > 0.5, "data wait explains {value:.0%} of the lost time")),
        Clue(1.0, says("share", lambda share: share > 0.2, "{value:.0%} of the step is data wait")),
        Clue(0.7, rises("host_disk_read_latency_seconds", 3.0, "disk read latency", least=0.002)),
        Clue(0.5, everywhere("all ranks slowed down together")),
        Clue(0.5, beside("disk_pressure")),
        Clue(-3.0, stays(_IO, 0.1, "share of the time in which the ranks' processes wait for I/O")),
        Clue(-2.0, steady("host_disk_read_latency_seconds", 1.5, "disk read latency")),
        Clue(-2.0, without(_IO, stays("host_io_pressure_ratio", 0.1, "share in which some process of the node waits for I/O"))),
        Clue(-1.5, says("disk_read_latency_ratio", lambda ratio: ratio < 2, "disk read latency normal (x{value})")),
        Clue(-2.0, says("data_wait_share", lambda share: share < 0.2, "data wait explains only {value:.0%}")),
        Clue(-2.0, steady("data_wait_seconds", 1.3, "data wait")),
        Clue(
            -2.0, beside("step_locked_stalls", sentence="the same steps stalled in the attempt before: it travels with the data's position")
        ),
    ),
)
