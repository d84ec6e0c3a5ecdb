"""GPUs: clocks against the fleet, reasons decoded, errors with their meaning."""

import numpy as np
import pytest
from detector_streams import feed, ranked
from holter_monitor.detectors.gpu_error import GpuError
from holter_monitor.detectors.gpu_throttle import GpuThrottle
from holter_monitor.findings import Severity
from holter_monitor.stream.steps import Topology

CLOCK, MASK, HEAT = "gpu_sm_clock_hertz", "gpu_throttle_reasons", "gpu_temperature_celsius"


def fleet(ranks=32, count=300, seed=0):
    rng = np.random.default_rng(seed)
    return {
        CLOCK: 1.98e9 - 1.5e7 * rng.integers(0, 2, (count, ranks)),
        MASK: np.where(rng.random((count, ranks)) < 0.5, 4.0, 0.0),  # a power cap at full load is normal
        HEAT: 62 + rng.normal(0, 2, (count, ranks)),
        "compute_seconds": np.full((count, ranks), 0.5),
    }


def test_a_hot_gpu_is_named_with_node_reason_and_temperature():
    """S6 of the playbook: node 17, GPU 3, minus 22 %, hardware thermal slowdown."""
    run = fleet()
    run[CLOCK][100:, 11] *= 0.78
    run[MASK][100:, 11] = 0x40
    run[HEAT][100:, 11] = 91
    said = feed(GpuThrottle(), ranked(run, nodes=8))
    first = said[0]
    assert first.ranks == (11,) and first.nodes == ("node-01",) and first.onset_step == 100 and first.detected_step <= 125
    assert first.evidence["reasons"] == ["hardware thermal slowdown"] and first.evidence["clock_ratio"] == pytest.approx(0.78, abs=0.02)
    assert "below the fleet" in first.summary and "91 °C" in first.summary and "dcgmi diag" in first.summary
    assert said[-1].cost_seconds == pytest.approx(0.5 * (1 / 0.78 - 1) * 180, rel=0.1)


def test_a_fleet_at_its_power_cap_is_normal():
    run = fleet()
    run[CLOCK] *= 0.9
    run[MASK][:] = 4.0
    assert not feed(GpuThrottle(), ranked(run, nodes=8))


def test_a_dip_of_a_few_seconds_is_normal_and_so_is_heat_alone():
    run = fleet()
    run[CLOCK][100:108, 3] *= 0.5
    run[MASK][100:108, 3] = 0x8
    run[HEAT][:, 5] = 88
    assert not feed(GpuThrottle(), ranked(run, nodes=8))


def test_a_whole_node_without_power_is_one_finding_and_ends():
    run = fleet()
    run[CLOCK][60:200, 8:16] *= 0.6
    run[MASK][60:200, 8:16] = 0x80
    said = feed(GpuThrottle(), ranked(run, nodes=8))
    assert [f.scope for f in said] == ["node node-01"] * 2
    assert said[-1].is_over and abs(said[-1].end_step - 200) <= 5 and "power brake" in said[0].summary


def test_an_idle_gpu_clocks_down_by_design():
    run = fleet()
    run["gpu_utilization_ratio"] = np.ones_like(run[CLOCK])
    run[CLOCK][100:, 4] = 3.5e8
    run["gpu_utilization_ratio"][100:, 4] = 0.0
    run[MASK][100:, 4] = 1.0
    assert not feed(GpuThrottle(), ranked(run))


def xid(code, rank=9, step=40, **attrs):
    return {"event": "gpu_error", "rank": rank, "step": step, "time_ns": 0, "attrs": {"gpu": "3", "xid": code, **attrs}}


@pytest.mark.parametrize(
    ("code", "severity", "words"),
    [
        (79, Severity.CRITICAL, "fallen off the bus"),
        (48, Severity.CRITICAL, "double-bit ECC"),
        (31, Severity.WARNING, "look at the program first"),
        (45, Severity.INFO, "consequence"),
        (63, Severity.INFO, "next reset of the GPU"),
        (64, Severity.CRITICAL, "GPU memory remapping failure"),
        (94, Severity.WARNING, "contained memory error"),
        (95, Severity.CRITICAL, "reset the GPU"),
        (119, Severity.CRITICAL, "GSP RPC timeout"),
        (149, Severity.CRITICAL, "nvidia-smi nvlink"),
        (9999, Severity.WARNING, "unknown XID"),
    ],
)
def test_an_xid_has_a_meaning_a_severity_and_an_action(code, severity, words):
    finding = GpuError().hear(xid(code), Topology(node_of={9: "node-01"}))
    assert finding.severity == severity and words in finding.summary and finding.nodes == ("node-01",)


def test_a_second_identical_xid_is_seen():
    detector, topology = GpuError(), Topology(node_of={9: "node-01"})
    said = [detector.hear(xid(94, step=step), topology) for step in range(10, 30)]
    assert [f.evidence["count"] for f in said if f] == [1, 2, 4, 8, 16]
    assert len({(f.scope, f.onset_step) for f in said if f}) == 1


def test_memory_errors_that_grow_are_said_and_old_ones_are_no_news():
    count = np.full((200, 8), 17.0)
    count[120:, 2] += 1
    said = feed(GpuError(), ranked({"gpu_ecc_uncorrected_total": count}, nodes=4))
    assert [(f.ranks, f.onset_step, f.severity) for f in said] == [((2,), 120, Severity.CRITICAL)]


def test_a_counter_that_was_reset_is_no_growth():
    count = np.full((200, 4), 500.0)
    count[100:] = 0.0
    assert not feed(GpuError(), ranked({"gpu_ecc_corrected_total": count}))
