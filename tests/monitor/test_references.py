"""A run of the collector as the reference of another: by name, through the stores, live."""

import math

import numpy as np
from holter.frame import Column, Frame
from holter.tensors import Layout, Tensor


def send(served, run, losses, boot):
    """The steps of one rank in frames of 100."""
    for first in range(0, len(losses), 100):
        part = np.array(losses[first : first + 100], "<f4")
        steps = np.arange(first, first + len(part))
        columns = {"loss": Column(part), "tokens": Column(np.full(len(part), 1000, "<f4"))}
        rows = {"rank": np.zeros(len(part), np.int32), "step": steps, "time_ns": steps * 10**9}
        about = {"run": run, "attempt": "a1", "node": "n1", "boot": boot, "seq": first // 100, "sent_ns": 1}
        assert served.send(Frame(**about, **rows, metrics=columns)).status_code == 200


def test_a_run_that_learns_worse_than_its_reference_is_told(served):
    noise = np.random.default_rng(5).normal(0, 0.02, (2, 1_200))
    curve = np.array([2 + 3 * math.exp(-step / 200) for step in range(1_200)])
    small = served.new_run("small", project="held")
    send(served, small, curve + noise[0], "small")
    served.until(lambda: (served.get(f"runs/{small}")["last_step"] or 0) == 1_199)
    large = served.new_run("large", project="held", reference="small")
    send(served, large, (curve + noise[1]) * 1.05, "large")
    [found] = served.until(lambda: served.get("incidents", run=large, kind="reference_gap")["items"])
    assert found["evidence"]["reference"] == "small"
    assert found["evidence"]["aligned_by"] == "tokens"


def watch(served, run, dtype):
    """Two matrices of 64 x 64, as the first rank's `run.watch` puts them on record."""
    tensors = tuple(Tensor(f"layers.{number}.mlp", dtype, (64, 64), {"dp": "R"}, "declared") for number in range(2))
    attrs = {"mesh": {"dp": [0, 2]}, "table": Layout(tensors, sizes={"dp": 2}).to_json()}
    frame = Frame(run, "a1", "n1", f"watch {run}", 0, 1)
    frame.events.append({"event": "watch", "rank": 0, "step": None, "time_ns": 1, "attrs": attrs})
    assert served.send(frame).status_code == 200


def test_weights_that_are_kept_in_another_dtype_than_the_reference_s_are_told(served):
    """S11 of the playbook, through the stores: no step has been made yet."""
    small = served.new_run("fp32", project="dtypes")
    watch(served, small, "float32")
    send(served, small, [2.0] * 200, "fp32")
    served.until(lambda: (served.get(f"runs/{small}")["last_step"] or 0) == 199)
    large = served.new_run("ported", project="dtypes", reference="fp32")
    watch(served, large, "bfloat16")
    [found] = served.until(lambda: served.get("incidents", run=large, kind="reference_gap")["items"])
    assert found["severity"] == "warning" and "100% of the parameters are kept in bfloat16, fp32 has them in float32" in found["summary"]


def test_a_reference_that_does_not_exist_hurts_nothing(served):
    run = served.new_run("alone", project="held", reference="nobody")
    send(served, run, [2.0] * 200, "alone")
    served.until(lambda: (served.get(f"runs/{run}")["last_step"] or 0) == 199)
    assert served.get("incidents", run=run, kind="detector_failed")["items"] == []
