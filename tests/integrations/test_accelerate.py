"""A real Accelerator: what the script logs already, Holter records."""

import pytest

pytest.importorskip("torch")
accelerate = pytest.importorskip("accelerate")

pytestmark = pytest.mark.torch


def test_what_is_logged_is_recorded(collector):
    from holter.integrations.accelerate import HolterTracker

    accelerator = accelerate.Accelerator(cpu=True, log_with=HolterTracker("n", project="p"))
    accelerator.init_trackers("p", config={"lr": 0.1})
    for step in range(5):
        accelerator.log({"loss": 1.0 / (step + 1), "train/aux": step}, step=step)
    accelerator.end_training()
    collector.wait_for_event("rank_finished")
    collector.wait_for(lambda seen: len(seen.points("loss")) == 5)
    assert collector.points("train.aux") == [(step, float(step)) for step in range(5)]
    assert collector.wait_for_event("config")["attrs"] == {"lr": 0.1}
