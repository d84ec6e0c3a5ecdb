"""Checkpoints of every format that is known, on a directory and on stores that fsspec opens, and their copies: real files, no format's own code."""

import json
import os
import pickle  # noqa: TID251  writes what torch.distributed.checkpoint writes
import shutil
import threading
import zipfile
from dataclasses import dataclass

import fsspec
import pytest
from holter.checkpoints import plan
from holter.checkpoints.names import newest, step_of
from holter.checkpoints.plan import Plan
from holter.checkpoints.shelf import open_shelf
from holter.errors import SettingsError, ShelfError
from holter.node.sampling import Sampling
from holter.samplers import Place
from holter.samplers.checkpoints import Checkpoints


@pytest.fixture(params=["directory", "file", "memory"])
def address(request, tmp_path):
    """A place of each kind: `fill(name, files)` writes there, whatever kind it is."""
    root = tmp_path / "checkpoints"
    if request.param == "memory":
        yield f"memory://{tmp_path.name}"
        fsspec.filesystem("memory").store.clear()
    else:
        yield str(root) if request.param == "directory" else root.as_uri()


def fill(address, name, files):
    store, root = fsspec.core.url_to_fs(address)
    for path, content in files.items():
        target = f"{root}/{name}/{path}" if path else f"{root}/{name}"
        store.makedirs(target.rpartition("/")[0], exist_ok=True)
        store.pipe_file(target, content)


def remove(address, name):
    store, root = fsspec.core.url_to_fs(address)
    store.rm(f"{root}/{name}", recursive=True)


class Watched:
    def __init__(self, folder, **given):
        self.now, self.told = 0.0, {}
        self.place = Place(pid=os.getpid(), local_rank=0, checkpoints=Plan(folder=folder, **given))
        self.sampler = Checkpoints(clock=lambda: self.now)

    def look(self, times=3, seconds=30.0):
        for _ in range(times):
            self.now += seconds
            for _, _, attrs in self.sampler.sample([self.place]).events:
                self.told = json.loads(json.dumps(attrs))
        return {item[0]: item[3] for item in self.told.get("items", [])}

    def copies(self):
        return {item[0]: item[5] for item in self.told["items"]}


def safetensors(size=32):
    header = json.dumps({"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(size)


def archive(tmp_path, size=5000):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("archive/data.pkl", os.urandom(size))
    return (tmp_path / "a.zip").read_bytes()


@dataclass
class Info:
    relative_path: str


def metadata(*names):
    return pickle.dumps({"storage_data": [Info(name) for name in names]})


WHOLE = {
    "safetensors": lambda tmp: {f"model-{n:05d}-of-00002.safetensors": safetensors() for n in (1, 2)},
    "index": lambda tmp: {"model.safetensors.index.json": b'{"weight_map": {"w": "a.safetensors"}}', "a.safetensors": safetensors()},
    "dcp": lambda tmp: {".metadata": metadata("__0_0.distcp", "__1_0.distcp"), "__0_0.distcp": b"a", "__1_0.distcp": b"b"},
    "torch": lambda tmp: {"mp_rank_00/model_optim_rng.pt": archive(tmp)},
    "transformers": lambda tmp: {"model.safetensors": safetensors(), "training_args.bin": b"x", "trainer_state.json": b"{}"},
}
HARMS = {
    "safetensors": ("model-00002-of-00002.safetensors", None, "1 of 2 shards are missing, first model-00002"),
    "index": ("a.safetensors", lambda content: content[:-1], "a.safetensors has"),
    "dcp": ("__1_0.distcp", None, "1 of 2 shards are missing, first __1_0.distcp"),
    "torch": ("mp_rank_00/model_optim_rng.pt", lambda content: content[:-30], "is cut: its end is missing"),
    "transformers": ("trainer_state.json", None, "trainer_state.json is missing"),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_each_format_is_whole_or_is_told_what_it_lacks(address, tmp_path, kind):
    files = WHOLE[kind](tmp_path)
    fill(address, "checkpoint-10", files)
    watched = Watched(address)
    assert watched.look() == {"checkpoint-10": "complete"}
    name, harm, said = HARMS[kind]
    hurt = {path: content for path, content in files.items() if path != name} | ({name: harm(files[name])} if harm else {})
    fill(address, "checkpoint-20", hurt)
    assert watched.look()["checkpoint-20"] == "writing", "it may still be on its way"
    assert said in watched.look(times=25)["checkpoint-20"]


def test_the_marker_that_its_siblings_have_or_that_was_declared_is_demanded(address):
    for step in (1, 2, 3, 4):
        fill(address, f"step{step}", {"model.bin": b"x"} | ({"COMPLETE": b""} if step < 4 else {}))
    states = Watched(address).look(times=30)
    assert states.pop("step4") == "COMPLETE is missing" and set(states.values()) == {"complete"}
    assert Watched(address, complete="*.json").look(times=30)["step1"] == "*.json is missing"
    fill(address, "step1.done", {"": b""})
    states = Watched(address, complete="{name}.done").look(times=30)
    assert states["step1"] == "complete" and states["step2"] == "step2.done is missing"


def test_a_tracker_that_names_what_is_not_there(address):
    """Megatron resumes from what this file says; `rm -rf iter_*` leaves it behind."""
    for step in (100, 200):
        fill(address, f"iter_{step:07d}", {"mp_rank_00/model_optim_rng.pt": b"x" * 100})
    fill(address, "latest_checkpointed_iteration.txt", {"": b"200"})
    watched = Watched(address)
    assert set(watched.look().values()) == {"complete"}
    remove(address, "iter_0000200")
    assert watched.look()["latest_checkpointed_iteration.txt"] == "it names step 200, which is not there: a resume would fail"


def test_what_is_deleted_is_gone_from_every_kind_of_place(address):
    for step in (10, 20):
        fill(address, f"step_{step}", {"w.bin": b"x"})
    watched = Watched(address)
    assert list(watched.look()) == ["step_10", "step_20"]
    remove(address, "step_20")
    assert list(watched.look()) == ["step_10"]


@pytest.mark.parametrize("check", ["pieces", "all"])
def test_a_copy_is_verified_and_one_with_other_bytes_is_not(address, tmp_path, check):
    content = os.urandom(1 << 20)
    fill(address, "step_10", {"a/w.bin": content, "b.bin": b"y"})
    copy = (tmp_path / "copy").as_uri()
    watched = Watched(address, copy=copy, check=check)
    watched.look()
    assert watched.copies() == {"step_10": "absent"}
    fill(copy, "step_10", {"a/w.bin": content[:1000]})
    watched.look()
    assert watched.copies() == {"step_10": "1 of 2 files are not there, first b.bin"}
    fill(copy, "step_10", {"a/w.bin": content[:-1] + bytes([content[-1] ^ 1]), "b.bin": b"y"})
    watched.look()
    assert watched.copies()["step_10"].startswith("a/w.bin differs between bytes ")
    os.utime(tmp_path / "copy" / "step_10" / "a" / "w.bin", ns=(1, 1))
    fill(copy, "step_10", {"a/w.bin": content})
    watched.look()
    assert watched.copies() == {"step_10": "verified"}


def test_one_byte_in_the_middle_of_nowhere_is_seen_only_by_a_check_of_all(tmp_path):
    """What `pieces` can see is its documented limit: the beginning, the middle and the end."""
    content = bytearray(os.urandom(4 << 20))
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    fill(here, "step_1", {"w.bin": bytes(content)})
    content[1 << 20] ^= 1
    fill(there, "step_1", {"w.bin": bytes(content)})
    for check, state in (("pieces", "verified"), ("all", "w.bin differs between bytes 0 and 4,194,304"), ("sizes", "verified")):
        watched = Watched(here, copy=there, check=check)
        watched.look()
        assert watched.copies() == {"step_1": state}


def test_what_was_moved_to_the_other_place_is_not_gone(address, tmp_path):
    """Local, then S3, then deleted here: the way that the playbook's authors worked."""
    copy = str(tmp_path / "copy")
    for step in (10, 20):
        fill(address, f"step_{step}", {"w.bin": b"x"})
        fill(copy, f"step_{step}", {"w.bin": b"x"})
    watched = Watched(address, copy=copy)
    watched.look()
    remove(address, "step_10")
    assert watched.look() == {"step_10": "moved", "step_20": "complete"} and watched.copies() == {
        "step_10": "verified",
        "step_20": "verified",
    }
    again = Watched(address, copy=copy)
    again.look()
    assert again.copies() == {"step_10": "whole", "step_20": "verified"}, "an agent that starts anew never saw the original"


def test_a_place_that_does_not_answer_is_told_as_that_and_not_as_empty(tmp_path):
    folder = tmp_path / "checkpoints"
    fill(str(folder), "step_1", {"w.bin": b"x"})
    watched = Watched(str(folder), copy="nosuchstore://bucket/run")
    assert watched.look() == {"step_1": "complete"} and "nosuchstore" in watched.told["copy_problem"]
    shutil.rmtree(folder)
    folder.write_text("a file")
    watched.look()
    assert "items" not in watched.told and "NotADirectoryError" in watched.told["problem"]
    with pytest.raises(ShelfError, match="nosuchstore"):
        open_shelf("nosuchstore://bucket/run")


def test_a_store_that_hangs_switches_the_sampler_off_and_holds_nobody_up(tmp_path, monkeypatch):
    let_go = threading.Event()

    class Dead(fsspec.AbstractFileSystem):
        protocol = "dead"

        def ls(self, path, detail=True, **_):
            let_go.wait(60)
            return []

    fsspec.register_implementation("dead", Dead, clobber=True)
    monkeypatch.setattr("holter.node.sampling.HANGS_AFTER_SECONDS", 0.2)
    off = []
    desk = Sampling([Checkpoints], tmp_path, lambda sample: None, lambda name, reason: off.append((name, reason)))
    place = Place(pid=os.getpid(), local_rank=0, checkpoints=Plan(folder="dead://x"))
    until = threading.Event()
    for _ in range(600):
        desk.look([place])
        if off:
            break
        until.wait(0.1)
    let_go.set()
    assert off == [("checkpoints", "no answer in 0 s")]


def test_names():
    assert [step_of(name) for name in ("checkpoint-500", "iter_0001000", "global_step40", "epoch=3-step=1200.ckpt", "0000100", "ckpt")] == [
        *(500, 1000, 40, 1200, 100, -1)
    ]
    entries = ["checkpoint-2", "checkpoint-10", "runs", "train-2024.log", ".tmp-step-3", "model-00001-of-00002.safetensors", "events.out.1"]
    assert newest(entries) == ["checkpoint-2", "checkpoint-10"]


def test_the_plan_is_read_from_the_environment_or_from_the_call():
    words = {
        "HOLTER_CHECKPOINTS": "/c",
        "HOLTER_CHECKPOINT_COPY": "s3://b/c",
        "HOLTER_CHECKPOINT_EVERY": "2h",
        "HOLTER_CHECKPOINT_KEEP": "3",
    }
    assert plan.read(words) == Plan(folder="/c", copy="s3://b/c", every=7200.0, keep=3)
    assert plan.read(words, {"folder": "/d", "every": 60}) == Plan(folder="/d", copy="s3://b/c", every=60.0, keep=3)
    assert plan.read({}) is None and plan.read({}, "/d") == Plan(folder="/d")
    for wrong in ({"every": "soon"}, {"keep": "all"}, {"check": "some"}, {"place": "/x"}, {"copy": "/c/"}):
        with pytest.raises(SettingsError):
            plan.read({"HOLTER_CHECKPOINTS": "/c"}, wrong)
    assert plan.stored({"folder": "/c", "colour": "red"}) is None, "a ring of another version"


def test_secrets_in_an_address_are_not_told():
    fsspec.register_implementation("quiet", fsspec.implementations.memory.MemoryFileSystem, clobber=True)
    assert open_shelf("quiet://key:secret@bucket/run?token=x").address == "quiet://bucket/run"
