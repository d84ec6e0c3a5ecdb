"""The Smol Training Playbook's traces through `scan` with the whole suite: each scenario ends in its findings at its steps, and in no others."""

import csv
import os
from pathlib import Path

import pytest
from holter_monitor.findings import Severity
from holter_monitor.offline import log_reference
from holter_monitor.offline.scan import Scanned, ScanSettings, scan

SHARED = Path(os.environ.get("HOLTER_SHARED") or Path(__file__).resolve().parents[2] / "shared")


@pytest.fixture
def trace(tmp_path):
    """One run of a published trace as a log of its own: `trace(file, run)`."""

    def cut(name, run):
        path = SHARED / "traces" / "playbook" / name
        if not path.is_file():
            pytest.skip(f"the playbook's trace {path} is not here: set HOLTER_SHARED to the folder that has traces/playbook")
        with path.open(newline="") as lines:
            rows = [row for row in csv.DictReader(lines) if row.pop("run_name").strip() == run]
        axis = "step" if "step" in rows[0] else "tokens"
        rows.sort(key=lambda row: float(row[axis]))
        made = tmp_path / f"{name}-{run}.csv".replace(" ", "_")
        with made.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["tokens_per_second" if key == "throughput" else key for key in rows[0]])
            writer.writeheader()
            writer.writerows({"tokens_per_second" if key == "throughput" else key: value for key, value in row.items()} for row in rows)
        return made

    return cut


def troubles(*logs, **settings):
    found = []
    for scanned in scan(logs, ScanSettings(**settings)):
        assert isinstance(scanned, Scanned), scanned
        found += scanned.troubles
    return found


def of_kind(kind, found):
    return [trouble for trouble in found if trouble.incident.kind == kind]


def test_s1_the_evicted_storage_and_the_collapse_after_it(trace):
    found = troubles(trace("throughput_weka_drops.csv", "Weka drops"))
    first, second = of_kind("throughput_drop", found)
    assert (first.onset_step, first.detected_step) == (291, 292) and first.incident.severity == Severity.CRITICAL
    assert 1930 <= second.onset_step <= 1950 and second.detected_step <= 1990 and second.incident.severity == Severity.CRITICAL
    assert {trouble.incident.kind for trouble in found} == {"throughput_drop", "throughput_stalls"}


def test_s2_the_stalls_that_came_back_on_another_disk(trace):
    logs = [trace("throughput_weka_drops.csv", "Weka drops"), trace("throughput_drops_comparison.csv", "With drops")]
    (locked,) = of_kind("step_locked_stalls", troubles(*logs, is_one_run=True))
    assert locked.onset_step == 291 and locked.detected_step <= 295
    assert locked.incident.evidence["recurring"] == 40 and locked.incident.evidence["expected_by_chance"] < 1.2


def test_s4_the_gap_to_the_reference_is_found_for_the_bug_and_not_for_the_repair(trace):
    reference = log_reference.read(str(trace("tp_debug_fix_loss.csv", "TP1")), ScanSettings())
    (gap,) = of_kind("reference_gap", troubles(trace("tp_debug_fix_loss.csv", "TP2"), reference=reference))
    assert gap.detected_tokens is not None and gap.detected_tokens <= 2.5e9
    assert of_kind("reference_gap", troubles(trace("tp_debug_fix_loss.csv", "TP2 after fix"), reference=reference)) == []


def test_s8_and_s9_the_two_spikes_are_told_apart(trace):
    (isolated,) = troubles(trace("spike_loss.csv", "Recoverable spikes"))
    assert isolated.incident.kind == "loss_spike" and isolated.incident.severity == Severity.WARNING
    found = troubles(trace("spike_loss.csv", "Non recoverable spikes"))
    spikes = of_kind("loss_spike", found)
    assert [spike.incident.severity for spike in spikes] == [Severity.WARNING, Severity.CRITICAL], "a precursor, then a page"
    assert spikes[0].onset_step < spikes[1].onset_step


def test_s13_a_healthy_run_is_met_with_silence(trace):
    assert troubles(trace("throughput_drops_comparison.csv", "Without drops")) == []
