"""Communication got slow: a link, a switch, a congested fabric."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, beside, everywhere, rises, says, steady

SLOW_NETWORK = Cause(
    name="slow_network",
    explains=("throughput_drop", "throughput_decline", "throughput_stalls", "straggler"),
    sentence="communication between ranks is slow",
    action="look at link errors and retransmissions (ibstat, ethtool -S, nvidia-smi nvlink -e); an all-reduce test over halves of the nodes finds the link",
    clues=(
        Clue(2.0, rises("gpu_nvlink_errors_total", 1.0001, "NVLink errors")),
        Clue(2.0, rises("gpu_pcie_replays_total", 1.0001, "PCIe replays")),
        Clue(1.8, rises("section_communication_seconds", 1.5, "time in communication")),
        Clue(1.8, rises("section_all_reduce_seconds", 1.5, "time in all-reduce")),
        Clue(0.8, says("compute_ratio", lambda ratio: ratio < 1.1, "compute time normal")),
        Clue(0.3, everywhere("all ranks slowed down together")),
        Clue(-1.5, says("compute_ratio", lambda ratio: ratio > 1.15, "compute time x{value}")),
        Clue(-3.0, beside("straggler", sentence="some ranks are slow themselves: the others wait for them inside communication")),
        Clue(-2.0, says("cause", lambda cause: cause in ("own work", "data_wait"), "the extra time is its own {value}")),
        Clue(-2.0, says("data_wait_share", lambda share: share > 0.5, "data wait explains {value:.0%} of the lost time")),
        Clue(-1.5, steady("section_communication_seconds", 1.2, "time in communication")),
    ),
)
