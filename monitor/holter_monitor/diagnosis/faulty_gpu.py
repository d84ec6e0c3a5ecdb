"""A GPU is broken: XID, uncorrectable ECC, fell off the bus, computes wrongly."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, beside, happened, kind_is, local, says

FAULTY_GPU = Cause(
    name="faulty_gpu",
    explains=(
        "gpu_error",
        "rank_lost",
        "hang",
        "memory_corruption",
        "replica_mismatch",
        "rank_disagreement",
        "non_finite",
        "straggler",
        "restart_storm",
    ),
    sentence="the GPU of {place} is faulty",
    action="take {nodes} out of the job, run dcgmi diag -r 3, and give the XID to the vendor; restart on a spare from {rewind}",
    clues=(
        Clue(4.0, kind_is("gpu_error")),
        Clue(3.0, beside("gpu_error")),
        Clue(3.0, happened("gpu_error")),
        Clue(2.5, kind_is("memory_corruption")),
        Clue(1.0, says("xid", lambda xid: xid is not None, "XID {value}")),
        Clue(0.5, local("only these ranks")),
        Clue(1.0, says("suspect_times", lambda times: times >= 3, "the same node was lost first {value} times")),
    ),
)
