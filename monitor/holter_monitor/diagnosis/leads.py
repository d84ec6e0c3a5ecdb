"""Where to look while the cause is not known: which metric on which panel, which command on which nodes, for which ranks and steps. Declarative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holter_monitor.diagnosis.case import Case
from holter_monitor.diagnosis.cause import facts
from holter_monitor.diagnosis.symptoms import SURE

AT_MOST = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Lead:
    """One thing to look at, best first in `LEADS`."""

    kinds: tuple[str, ...]
    look: str
    """With the placeholders of `facts`."""
    metric: str = ""
    """What it is about, if that is a metric."""
    unrecorded: str = ""
    """Said as well where the run records no such metric: the next incident of this kind should find it."""
    of_all: bool | None = None
    """True: only where all ranks are meant; False: only where few are; None: both."""


_SLOW = ("throughput_drop", "throughput_stalls", "throughput_decline", "data_stall", "step_locked_stalls")
_LOSS = ("loss_spike", "loss_shift", "loss_divergence", "loss_noise", "loss_plateau", "grad_explosion", "grad_vanishing", "non_finite")
_UNLIKE = ("rank_disagreement", "replica_mismatch", "memory_corruption")

LEADS: tuple[Lead, ...] = (
    Lead(
        kinds=_SLOW,
        look='the wait for data of {ranks}, {steps} (panel "Data wait" of Holter / Run): if it rises with the step time, the storage or the loader is slow',
        metric="data_wait_seconds",
        unrecorded="nothing here says how long the ranks wait for data: wrap the loader in run.batches(loader)",
    ),
    Lead(
        kinds=_SLOW,
        look="the read latency of the data's file system on {nodes}, {steps} (host_disk_read_latency_seconds; iostat -x 5, nfsiostat 5), and whether its "
        "files left the fast tier: if so, pin them or copy them to local disk; draining nodes will not help",
        metric="host_disk_read_latency_seconds",
        of_all=True,
    ),
    Lead(
        kinds=_SLOW,
        look='the own work of each rank at step {onset} (panel "Own work" of Holter / Ranks and GPUs): one rank that does not wait holds up all',
        metric="compute_seconds",
        unrecorded="nothing here tells the ranks' own work from their waiting: put forward and backward into run.section(...)",
    ),
    Lead(
        kinds=(*_SLOW, "straggler"),
        look='clocks and throttle reasons on {nodes}, {steps} (panels "SM clock" and "Temperature" of Holter / Ranks and GPUs; nvidia-smi -q -d PERFORMANCE)',
        metric="gpu_sm_clock_hertz",
    ),
    Lead(
        kinds=("straggler",),
        look="what shares the cores and the disk of {ranks} on {nodes} (top -H, pidstat -d 5; process_cpu_wait_ratio and process_io_wait_ratio, {steps})",
        metric="process_cpu_wait_ratio",
    ),
    Lead(
        kinds=("straggler",),
        look='the other ranks of {nodes} (panel "Own work" of Holter / Ranks and GPUs): a whole slow node is its host, one rank its GPU or its data',
    ),
    Lead(
        kinds=_LOSS,
        look="the batches, {steps}: sources, documents a batch, lengths",
        metric="batch",
        unrecorded="nothing here names the batches: run.batches(loader) does",
    ),
    Lead(
        kinds=_LOSS,
        look='gradient and update norm, {steps} (panel "Gradient norm" of Holter / Run): what rose before the loss did is the optimisation, '
        "what was calm until the step is the data",
        metric="grad_norm",
        unrecorded="no gradient norm is recorded: pass grad_norm to run.step",
    ),
    Lead(
        kinds=("reference_gap",),
        look="what differs from the reference: dtype of parameters and gradients, parallel layout, seeds, data order, tokenizer (the two runs' configurations)",
    ),
    Lead(
        kinds=(*_LOSS, "reference_gap"),
        look='what was changed before step {onset}: learning rate, batch size, data mix, a resume (panels "Learning rate" and "What happened" of Holter / Run)',
        metric="lr",
    ),
    Lead(
        kinds=_LOSS,
        look="the loss of each rank at step {onset} (Holter / Ranks and GPUs, metric loss): one rank that is far from the others has bad data or a bad GPU",
        of_all=True,
    ),
    Lead(
        kinds=("hang",),
        look="where {ranks} stand: holter stacks RUN (py-spy dump --pid PID on {nodes}); who is somewhere else than the others?",
    ),
    Lead(kinds=("hang",), look="the kernel's log on {nodes} (dmesg -T): Xid, NVLink and network errors, tasks that wait for a file system"),
    Lead(
        kinds=("hang",),
        look="the communicators: TORCH_NCCL_TRACE_BUFFER_SIZE=2000 lets PyTorch's flight recorder say who did not enter which collective",
    ),
    Lead(
        kinds=("rank_lost", "restart_storm"),
        look="the last lines of the log of {place}, and its kernel's log (dmesg -T on {nodes}): out of memory, Xid, segfault",
    ),
    Lead(
        kinds=("rank_lost", "restart_storm"),
        look="the scheduler's word on {nodes} (sacct -j JOB, kubectl describe pod): preempted, timed out, node failed",
    ),
    Lead(
        kinds=("restart_storm",),
        look='which node is in most of the short attempts (panel "Attempts" of Holter / Run): exclude it and run the vendor\'s diagnostics on it',
    ),
    Lead(
        kinds=_UNLIKE,
        look="a second look at {place} alone: dcgmi diag -r 3 on {nodes}, and the same step with deterministic kernels on another GPU",
    ),
    Lead(
        kinds=(*_UNLIKE, "reference_gap"),
        look="a saved checkpoint of about step {onset}: holter audit CHECKPOINT_DIR tells which tensors differ where they must be equal",
    ),
    Lead(kinds=("disk_pressure",), look="what fills or floods the file system on {nodes} (df -h, du -x --max-depth=2, iotop -o), {steps}"),
    Lead(
        kinds=("detector_failed",),
        look="the evidence: it names the detector and its error. It is Holter's fault, not the run's; the other detectors go on",
    ),
    Lead(
        kinds=("checkpoint_lost", "checkpoint_overdue", "eval_overdue", "data_position"),
        look="what the launch script and the resume code say they loaded, and the folder's listing with times",
    ),
)


def leads(case: Case, causes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """For the evidence: `{"look_at": [...]}`, best first; nothing once a cause is known."""
    if causes and causes[0]["confidence"] >= SURE:
        return {}
    words = facts(case)
    fitting = [lead for lead in LEADS if case.incident.kind in lead.kinds and lead.of_all in (None, case.is_everywhere)]
    return {"look_at": [_said(lead, case).format_map(words) for lead in fitting[:AT_MOST]]} if fitting else {}


def _said(lead: Lead, case: Case) -> str:
    # Without any signal nobody has looked (a storm, a log of one metric): that says nothing about what is recorded.
    is_missing = lead.unrecorded and case.signals and not case.knows(lead.metric)
    return f"{lead.look}; {lead.unrecorded}" if is_missing else lead.look
