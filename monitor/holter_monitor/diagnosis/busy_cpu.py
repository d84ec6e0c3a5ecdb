"""Somebody else takes the CPU: a noisy process, an oversubscribed host, steal of a hypervisor."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, local, peaks, rises, says, steady

BUSY_CPU = Cause(
    name="busy_cpu",
    explains=("straggler", "throughput_drop", "throughput_stalls", "throughput_decline", "data_stall"),
    sentence="something else takes the CPU that {place} need",
    action="find it on {nodes} (top, ps) and move or stop it; pin the ranks to cores; on a virtual machine ask for the steal",
    clues=(
        Clue(2.5, peaks("host_cpu_steal_ratio", 0.05, "CPU steal")),
        Clue(1.8, peaks("host_cpu_ratio", 0.9, "host CPU")),
        Clue(1.5, rises("host_load_1m", 1.5, "load")),
        Clue(1.0, rises("compute_seconds", 1.15, "compute time")),
        Clue(1.0, says("cause", lambda cause: cause == "compute", "the extra time is inside its own compute")),
        Clue(1.0, says("clock_ratio", lambda ratio: ratio > 0.95, "GPU clocks normal")),
        Clue(0.5, local("only some ranks are slow")),
        Clue(-2.5, says("clock_ratio", lambda ratio: ratio < 0.93, "GPU clocks at {value:.0%} of usual")),
        Clue(-1.0, steady("host_load_1m", 1.2, "load")),
        Clue(-1.5, rises("host_disk_read_latency_seconds", 3.0, "disk read latency", least=0.002)),
    ),
)
