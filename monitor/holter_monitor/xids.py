"""What NVIDIA's XID errors mean, how loud each is for a training job, and what to do.

Descriptions and actions follow NVIDIA's catalogue, "Analyzing Xid Errors with the Xid Catalog" for Ampere and newer
(https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html), as it stood in October 2025: the action is its immediate resolution
bucket (RESTART_APP, RESET_GPU, RESTART_BM, WORKFLOW_…, IGNORE, CONTACT_SUPPORT). Where the catalogue says IGNORE and yet the job is lost or a
part is wearing out, the sentence says what to look at instead. The severity is ours: critical where the GPU must be reset, its node
restarted or its links examined before the job can go on; warning where the program is lost; info where the driver has dealt with it.
"""

from __future__ import annotations

from typing import NamedTuple

from holter_monitor.findings import Severity


class Xid(NamedTuple):
    meaning: str
    severity: Severity
    action: str


PROGRAM = "restart the job and look at the program first: an illegal access or a kernel fault gives this on healthy hardware"
RESTART = "restart the job; contact the vendor's support if it comes again"
RESET = "drain the node and reset the GPU; contact the vendor's support if it comes again"
MEMORY = "drain the node and reset the GPU; run dcgmi diag -r 3 and have the GPU replaced if it comes again"
NVLINK = "drain the node, reset the GPUs on the link and examine it (nvidia-smi nvlink --errorcounters); NVSwitch and cable belong to it"
SUPPORT = "contact the vendor's support if it comes again"
OTHER = "look for the error beside it"

INFO, WARNING, CRITICAL = Severity.INFO, Severity.WARNING, Severity.CRITICAL

XIDS: dict[int, Xid] = {
    8: Xid("GPU stopped processing", WARNING, RESTART),
    11: Xid("invalid or corrupted push buffer stream", WARNING, PROGRAM),
    13: Xid("graphics engine exception", WARNING, PROGRAM),
    25: Xid("invalid or illegal push buffer stream", WARNING, PROGRAM),
    31: Xid("GPU memory page fault", WARNING, PROGRAM),
    32: Xid("invalid or corrupted push buffer stream", WARNING, PROGRAM),
    37: Xid("driver firmware error", INFO, PROGRAM),
    38: Xid("driver firmware error", INFO, SUPPORT),
    39: Xid("copy engine exception", WARNING, RESTART),
    40: Xid("copy engine exception", WARNING, RESTART),
    41: Xid("copy engine exception", WARNING, RESTART),
    43: Xid("GPU stopped processing: the program's channel was reset", WARNING, "the GPU is healthy; " + PROGRAM),
    44: Xid("graphics engine fault during context switch", WARNING, SUPPORT),
    45: Xid(
        "preemptive cleanup, the consequence of another error",
        INFO,
        "look for the error before it; alone it asks for a fabric manager restart",
    ),
    46: Xid("GPU stopped processing: timeout", CRITICAL, RESET),
    48: Xid("double-bit ECC error", CRITICAL, MEMORY + "; with XID 63 or 64 beside it the row is remapped at the reset"),
    54: Xid("auxiliary power is not connected to the GPU board", CRITICAL, "drain the node and check the power cables"),
    61: Xid("internal micro-controller breakpoint (older drivers)", CRITICAL, RESET),
    62: Xid("internal micro-controller halt", CRITICAL, RESET),
    63: Xid("GPU memory remapping event", INFO, "nothing now: the row is replaced at the next reset of the GPU"),
    64: Xid("GPU memory remapping failure", CRITICAL, MEMORY),
    66: Xid("illegal access by driver", INFO, SUPPORT),
    67: Xid("illegal access by driver", INFO, SUPPORT),
    68: Xid("NVDEC0 exception", WARNING, RESTART),
    69: Xid("graphics engine class error", WARNING, PROGRAM),
    74: Xid("NVLink error", CRITICAL, NVLINK),
    79: Xid(
        "GPU has fallen off the bus",
        CRITICAL,
        "drain the node and restart it; check PCIe and power, have the GPU replaced if it comes again",
    ),
    80: Xid("corrupted data sent to the GPU", WARNING, PROGRAM),
    92: Xid("high single-bit ECC error rate", INFO, "nothing now: errors are corrected; watch whether they become more"),
    93: Xid("InfoROM wear limit exceeded, not fatal", INFO, SUPPORT),
    94: Xid("contained memory error", WARNING, "the program that hit it is lost, no other: restart it, reset the GPU at the next occasion"),
    95: Xid("uncontained memory error", CRITICAL, MEMORY),
    109: Xid("context switch timeout", CRITICAL, RESET),
    110: Xid("security fault", CRITICAL, RESET),
    119: Xid("GSP RPC timeout", CRITICAL, RESET + ", with driver and firmware versions at hand"),
    120: Xid("GSP error", CRITICAL, RESET + ", with driver and firmware versions at hand"),
    121: Xid("C2C link error, corrected", INFO, SUPPORT),
    136: Xid("link training failed", CRITICAL, RESET),
    137: Xid(
        "NVLink privilege error: a remote GPU's access fault", WARNING, "look for XID 13, 31 or 94 of a GPU on the other end of the link"
    ),
    140: Xid("unrecovered ECC error", CRITICAL, MEMORY),
    141: Xid("CUDA fast path error", INFO, SUPPORT),
    143: Xid("GPU initialization error", CRITICAL, RESET),
    144: Xid("NVLink SAW error", CRITICAL, NVLINK),
    145: Xid("NVLink RLW error", CRITICAL, NVLINK),
    146: Xid("NVLink TLW error", CRITICAL, NVLINK),
    147: Xid("NVLink TREX error", CRITICAL, NVLINK),
    148: Xid("NVLink NVLPW_CTRL error", CRITICAL, NVLINK),
    149: Xid("NVLink NETIR error", CRITICAL, NVLINK),
    150: Xid("NVLink MSE error", CRITICAL, NVLINK),
    151: Xid("key rotation error", CRITICAL, "restart the virtual machine; " + SUPPORT),
    154: Xid(
        "GPU recovery action changed",
        WARNING,
        "do what the message names (none, reset the GPU, restart the node, drain): it sums up another XID",
    ),
    155: Xid("NVLink error as software defines it", CRITICAL, RESET),
    156: Xid("resource retirement event", WARNING, "drain the node and reset the GPU: a part of it is retired then"),
    157: Xid("resource retirement failure", WARNING, SUPPORT),
    158: Xid("GPU fatal timeout", CRITICAL, RESET),
    160: Xid("channel retirement event", INFO, SUPPORT),
    161: Xid("channel retirement failure", WARNING, SUPPORT),
    171: Xid("uncorrectable DRAM error, the particulars of an XID 48", INFO, OTHER),
    172: Xid("uncorrectable SRAM error, the particulars of an XID 48", INFO, OTHER),
}
"""Codes that a training job's GPU can meet; the catalogue's video, display and unused codes are left out."""
UNKNOWN = Xid("unknown XID", WARNING, "look it up in NVIDIA's XID catalogue")
