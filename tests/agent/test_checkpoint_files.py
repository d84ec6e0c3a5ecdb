"""A folder of checkpoints with real files: written, cut, trimmed, deleted; what the sampler tells and what the detector makes of it."""

import json
import os
import shutil

import pytest
from holter.checkpoints.plan import Plan
from holter.samplers import Place
from holter.samplers.checkpoints import Checkpoints
from holter_monitor.detectors.checkpoint_files import CheckpointFiles
from holter_monitor.findings import Severity
from holter_monitor.stream.steps import Topology


class Watch:
    """The sampler and the detector on one folder, with a clock of the test's."""

    def __init__(self, folder, **plan):
        self.folder, self.now, self.told = folder, 0.0, {}
        self.place = Place(pid=os.getpid(), local_rank=0, checkpoints=Plan(folder=str(folder), **plan))
        self.sampler, self.detector = Checkpoints(clock=lambda: self.now), CheckpointFiles()

    def look(self, times=2, seconds=30.0):
        said = []
        for _ in range(times):
            self.now += seconds
            for word, pid, attrs in self.sampler.sample([self.place]).events:
                event = json.loads(json.dumps({"event": word, "rank": 0, "step": None, "time_ns": 0, "attrs": attrs}))
                assert pid == self.place.pid
                self.told = attrs
                said += self.detector.hear(event, Topology()) or []
        return said

    def states(self):
        return {name: state for name, _, _, state, _, _ in self.told.get("items", [])}


@pytest.fixture
def watch(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    return Watch(folder)


def write(folder, step, shards=2):
    place = folder / f"step_{step}"
    place.mkdir()
    header = json.dumps({"w": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}}).encode()
    for number in range(1, shards + 1):
        (place / f"model-{number:05d}-of-{shards:05d}.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(32))
    return place


def test_a_checkpoint_that_grows_is_being_written_then_whole(watch):
    place = watch.folder / "step_10"
    place.mkdir()
    for size in (10, 20, 30):
        (place / "model.pt").write_bytes(bytes(size))
        assert not watch.look(times=1) and watch.states() == {"step_10": "writing"}
    assert watch.told["items"][0][2] == 10, "that it grows is no news"
    assert not watch.look() and watch.states() == {"step_10": "complete"}


def test_retention_is_silence_and_the_newest_gone_is_not(watch):
    for step in (10, 20, 30, 40):
        write(watch.folder, step)
    assert not watch.look()
    shutil.rmtree(watch.folder / "step_10")
    assert not watch.look()
    shutil.rmtree(watch.folder / "step_40")
    (said,) = watch.look()
    assert said.severity == Severity.WARNING and "step_40" in said.summary and "newest whole one left is step_30" in said.summary
    write(watch.folder, 50)
    assert [finding.is_over for finding in watch.look()] == [True]


def test_one_that_was_whole_and_is_cut_is_said(watch):
    place = write(watch.folder, 10)
    assert not watch.look() and watch.states() == {"step_10": "complete"}
    shard = place / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-8])
    (said,) = watch.look(times=22)
    assert f"{shard.name} has {shard.stat().st_size} bytes of {shard.stat().st_size + 8}" in said.summary


def test_a_script_that_clears_the_folder_pages(watch):
    for step in (10, 20, 30):
        write(watch.folder, step)
    watch.look()
    shutil.rmtree(watch.folder)
    (said,) = watch.look()
    assert said.severity == Severity.CRITICAL and said.summary.startswith("3 checkpoints disappeared")
    assert "no whole checkpoint is left" in said.summary
    assert said.evidence["disappeared"] == 3, "the diagnosis reads it"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda place: (place / "model-00002-of-00002.safetensors").unlink(), "1 of 2 shards are missing"),
        (lambda place: (place / "model-00001-of-00002.safetensors").write_bytes(b"\xff" * 4), "cut within its header"),
        (
            lambda place: (place / "model.safetensors.index.json").write_text('{"weight_map": {"w": "other.safetensors"}}'),
            "other.safetensors",
        ),
        (lambda place: (place / "__0_0.distcp").write_bytes(b"x"), ".metadata is missing"),
        (lambda place: (place / "rest.tmp").write_bytes(b"x"), "partial file"),
    ],
)
def test_what_is_not_whole_is_said_once_it_has_stood_still(watch, harm, said):
    harm(write(watch.folder, 10))
    assert not watch.look(times=10)
    findings = watch.look(times=20)
    assert len(findings) == 1 and said in findings[0].summary and findings[0].kind == "checkpoint_lost"


def test_ranks_without_a_plan_are_not_looked_at(watch):
    assert not watch.sampler.sample([Place(pid=os.getpid(), local_rank=3)]).events and not watch.sampler.watches


@pytest.mark.parametrize(("deleted", "severity"), [((30,), Severity.WARNING), ((10, 20, 30), Severity.CRITICAL), ((10,), None)])
def test_what_was_deleted_while_no_agent_looked_is_said_by_the_next_agent(watch, deleted, severity):
    """The next agent has seen nothing whole yet: it takes every checkpoint for one that is being written."""
    for step in (10, 20, 30):
        write(watch.folder, step)
    assert not watch.look()
    for step in deleted:
        shutil.rmtree(watch.folder / f"step_{step}")
    watch.sampler = Checkpoints(clock=lambda: watch.now)
    assert [finding.severity for finding in watch.look()] == ([] if severity is None else [severity])
