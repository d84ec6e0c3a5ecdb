"""Advice that one rank of two hears: real gloo trainings, in which both ranks obey at one step, or neither does."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from holter.testing import CollectorStandIn

pytest.importorskip("torch")

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("gloo")]

BOTH = {"stop": True, "checkpoint": True, "reason": "loss divergence"}


@contextmanager
def training(framework, folder):
    """Two ranks, each with its own collector; `(process, collectors)`."""
    with CollectorStandIn().serving() as first, CollectorStandIn().serving() as second:
        command = [sys.executable, str(Path(__file__).with_name("ranks.py")), framework, str(folder), first.url, second.url]
        patient = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True, stderr=subprocess.PIPE)
        try:
            yield patient, (first, second)
        finally:
            if patient.poll() is None:
                os.killpg(patient.pid, 9)
            patient.wait()


def ends(patient, folder):
    """The steps at which the ranks ended, which must have ended well."""
    said = patient.communicate(timeout=100)[1].decode()
    assert patient.returncode == 0, said[-4000:]
    return [int((folder / f"end-{rank}").read_text()) for rank in range(2)]


@pytest.mark.parametrize("framework", ["plain", "accelerate"])
def test_a_loop_s_ranks_stop_together_although_only_one_hears_it(tmp_path, framework):
    pytest.importorskip("torch" if framework == "plain" else framework)
    with training(framework, tmp_path) as (patient, collectors):
        collectors[0].advice = BOTH
        first, second = ends(patient, tmp_path)
    assert first == second and first % 5 == 0
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {f"checkpoint-0-{first}", f"checkpoint-1-{first}"}


@pytest.mark.parametrize(("framework", "checkpoint"), [("transformers", "checkpoint-{}"), ("lightning", "advised-step={}.ckpt")])
def test_a_framework_s_ranks_stop_together_with_a_checkpoint_although_only_one_hears_it(tmp_path, framework, checkpoint):
    pytest.importorskip(framework)
    with training(framework, tmp_path) as (patient, collectors):
        collectors[1].advice = BOTH
        first, second = ends(patient, tmp_path)
    assert first == second
    assert (tmp_path / checkpoint.format(first)).exists()


def test_advice_heard_late_is_not_obeyed_again(tmp_path):
    with training("plain", tmp_path) as (patient, (early, late)):
        early.advice = {"checkpoint": True}
        saved = [collector.wait_for_event("checkpoint", 60)["step"] for collector in (early, late)]
        late.advice = {"checkpoint": True}
        heard = late.wait_for_event("heard", 60)["step"]
        late.wait_for(lambda seen: seen.points("loss")[-1][0] > heard + 20, 60)
        early.advice = {"checkpoint": True, "stop": True}  # an operator's next word, while the other node has not heard it
        first, second = ends(patient, tmp_path)
        for collector in (early, late):
            collector.wait_for_event("rank_finished", 60)
    assert saved[0] == saved[1]
    assert first == second
    steps = {int(path.name.rsplit("-", 1)[1]) for path in tmp_path.glob("checkpoint-*")}
    assert steps == {saved[0], first}
