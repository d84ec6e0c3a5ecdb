"""Somebody else takes the CPU: a noisy process, an oversubscribed host, steal of a hypervisor."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, grows, local, peaks, rises, says, stays, steady, without

_CPU = "process_cpu_wait_ratio"
BUSY_CPU = Cause(
    name="busy_cpu",
    explains=("straggler", "throughput_drop", "throughput_stalls", "throughput_decline", "data_stall"),
    sentence="something else takes the CPU from {place}",
    action="find it on {nodes} (top, ps) and move or stop it; pin the ranks to cores; on a virtual machine ask for the steal",
    clues=(
        Clue(4.0, grows(_CPU, 0.15, "is ready to run and has no CPU")),
        Clue(2.5, peaks("host_cpu_steal_ratio", 0.05, "CPU steal")),
        Clue(1.8, without(_CPU, peaks("host_cpu_ratio", 0.9, "host CPU"))),
        Clue(1.5, without(_CPU, rises("host_load_1m", 1.5, "load"))),
        Clue(1.0, rises("compute_seconds", 1.15, "compute time")),
        Clue(0.8, says("cause", lambda cause: cause == "own work", "the extra time is inside its own compute")),
        Clue(0.5, says("clock_ratio", lambda ratio: ratio > 0.95, "GPU clocks normal")),
        Clue(0.5, local("only some ranks are slow")),
        Clue(-3.0, stays(_CPU, 0.1, "share of the time in which the ranks' processes wait for a CPU")),
        Clue(-2.5, grows("process_io_wait_ratio", 0.15, "waits for I/O")),
        Clue(-2.5, says("clock_ratio", lambda ratio: ratio < 0.93, "GPU clocks at {value:.0%} of usual")),
        Clue(-1.0, without(_CPU, steady("host_load_1m", 1.2, "load"))),
        Clue(-1.5, without(_CPU, rises("host_disk_read_latency_seconds", 3.0, "disk read latency", least=0.002))),
    ),
)
