"""Checkpoints as real files, from the agent's look to the message: overdue, deleted, not copied, not seen, no room, and silence where all is well."""

import json
import os
import shutil

import pytest
from holter.checkpoints.plan import Plan
from holter.samplers import Place
from holter.samplers.checkpoints import Checkpoints
from messages import Messages

HOUR = 3600.0


class Life:
    """A run of one step a minute that saves into a folder, watched as the node agent does."""

    def __init__(self, tmp_path, **plan):
        self.folder = tmp_path / "ckpt"
        self.folder.mkdir()
        self.messages = Messages(tmp_path)
        self.place = Place(pid=os.getpid(), local_rank=0, checkpoints=Plan(folder=str(self.folder), **plan))
        self.sampler = Checkpoints(clock=lambda: self.messages.now)

    def save(self, folder=None, step=None):
        step = self.messages.number if step is None else step
        path = (folder or self.folder) / f"step_{step}"
        path.mkdir(parents=True, exist_ok=True)
        (path / "w.pt").write_bytes(b"weights" * 100 + str(step).encode())
        os.utime(path / "w.pt", (self.messages.now, self.messages.now))
        return path

    def run(self, hours, every=None, copy=None, declares=False):
        """`every` hours a checkpoint, of which the newest three are kept."""
        for minute in range(int(hours * 60)):
            said = ()
            if every and minute % int(every * 60) == int(every * 60) - 1:
                if declares:
                    said = ({"event": "checkpoint", "rank": 0, "step": self.messages.number + 1, "time_ns": 0, "attrs": {}},)
                else:
                    self.save()
                    if copy:
                        self.save(copy)
                for old in sorted(self.folder.iterdir(), key=lambda path: int(path.name.split("_")[1]))[:-3]:
                    shutil.rmtree(old)
            self.messages.step(60.0, said, loss=2.0)
            self.look()

    def look(self):
        for word, _, attrs in self.sampler.sample([self.place]).events:
            self.messages.hear(word, rank=0, **json.loads(json.dumps(attrs)))

    @property
    def said(self):
        return self.messages.shown


@pytest.fixture
def life(tmp_path):
    return lambda **plan: Life(tmp_path, **plan)


def test_a_run_that_saves_and_keeps_three_is_met_with_silence(life, tmp_path):
    watched = life(copy=str(tmp_path / "copy"), every=2 * HOUR)
    watched.run(13, every=2, copy=tmp_path / "copy")
    assert watched.said == []


def test_s7_a_script_that_clears_the_folder_is_a_page_that_says_what_is_left(life):
    watched = life()
    watched.run(6.1, every=1)
    shutil.rmtree(watched.folder)
    watched.run(0.1)
    (page,) = watched.said
    assert page.startswith("[trigger critical checkpoint_lost]")
    assert "3 checkpoints disappeared" in page and "no whole checkpoint is left" in page and "stop it" in page


def test_s7_with_a_copy_elsewhere_the_message_names_it_and_its_age(life, tmp_path):
    watched = life(copy=str(tmp_path / "copy"))
    watched.run(2, every=1, copy=tmp_path / "copy")
    watched.run(3.1, every=1)
    shutil.rmtree(watched.folder)
    watched.run(0.1)
    page = next(text for text in watched.said if "checkpoint_lost" in text)
    assert "3 checkpoints disappeared" in page and f"the newest whole one left is step_119 at {tmp_path / 'copy'}, 3.1 h old" in page


@pytest.mark.parametrize("plan", [{"every": 2 * HOUR}, {}])
def test_s12_a_checkpoint_that_does_not_come_is_said_with_the_age_of_the_newest_and_ends_when_it_comes(life, plan):
    watched = life(**plan)
    watched.run(11, every=2)
    assert watched.said == []
    watched.run(4)
    (late,) = watched.said
    assert late.startswith("[trigger warning checkpoint_overdue]") and "the newest whole one is step_599" in late
    assert ("one every 2.0 h was said" if plan else "one every 2.0 h is its rhythm") in late
    watched.save()
    watched.run(0.1)
    assert watched.said[-1].startswith("[resolve ")


def test_declared_checkpoints_that_arrive_nowhere(life):
    watched = life()
    watched.run(2, every=0.5, declares=True)
    (said,) = watched.said
    assert "the run says since step 30" in said and "none has come to" in said and "there is none" in said


def test_a_copy_that_does_not_come_is_late_after_an_hour_and_good_when_a_newer_one_has_come(life, tmp_path):
    watched = life(copy=str(tmp_path / "copy"))
    watched.run(3, every=1, copy=tmp_path / "copy")
    watched.run(2.5, every=1)
    (late,) = watched.said
    assert "step_239 is whole in" in late and "(it has not come): the newest that has one is step_179" in late
    assert "look at the uploader" in late
    watched.save(tmp_path / "copy", step=299)
    shutil.copytree(watched.folder / "step_299", tmp_path / "copy" / "step_299", dirs_exist_ok=True)
    watched.run(0.1)
    assert watched.said[-1].startswith("[resolve ")


def test_a_copy_of_other_bytes_is_said_after_ten_minutes(life, tmp_path):
    watched = life(copy=str(tmp_path / "copy"))
    watched.run(1, every=1, copy=tmp_path / "copy")
    path = tmp_path / "copy" / "step_59" / "w.pt"
    path.write_bytes(path.read_bytes()[::-1])
    watched.run(0.5)
    (said,) = watched.said
    assert "w.pt differs between bytes 0 and" in said and "the copy is corrupt" in said


def test_a_place_that_cannot_be_looked_at_is_said_and_is_no_deletion(life):
    watched = life()
    watched.run(3, every=1)
    shutil.rmtree(watched.folder)
    watched.folder.write_text("an unmounted volume")
    watched.run(0.5)
    (said,) = watched.said
    assert "cannot be looked at for" in said and "NotADirectoryError" in said and "[trigger warning checkpoint_overdue]" in said
    assert "does not answer the node agent" in said
    watched.folder.unlink()
    watched.folder.mkdir()
    watched.run(0.1)
    assert any("checkpoint_lost" in text for text in watched.said), "and when it can be, they are gone"


def test_a_look_that_hangs_is_said_and_an_agent_that_was_killed_is_not_where_nobody_watches(life, tmp_path_factory):
    watched = life()
    watched.run(0.2)
    watched.messages.hear("sampler_off", sampler="checkpoints", reason="no answer in 30 s")
    for _ in range(10):
        watched.messages.step(60.0, loss=2.0)
    (said,) = watched.said
    assert "cannot be looked at for" in said and "no answer in 30 s" in said
    nobody = Messages(tmp_path_factory.mktemp("nobody"))
    nobody.hear("sampler_off", sampler="checkpoints", reason="the agent died inside it")
    for _ in range(10):
        nobody.step(60.0, loss=2.0)
    assert nobody.shown == []


def test_a_checkpoint_that_will_not_fit_is_said_before_it_is_written(life, monkeypatch):
    watched = life()
    free = [10_000]
    monkeypatch.setattr("holter.checkpoints.shelf.LocalShelf.free", lambda shelf: free[0])
    watched.run(2, every=1)
    assert watched.said == []
    free[0] = 300
    watched.run(1, every=1)
    (said,) = watched.said
    assert said.startswith("[trigger warning disk_pressure]") and "the next checkpoint, 703 B as the last ones, does not fit" in said
