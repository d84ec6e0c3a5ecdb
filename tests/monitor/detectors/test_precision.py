"""Weights that are kept in another dtype than the reference's, or than the attempt before had them in."""

import pytest
from holter.tensors import Layout, Tensor
from holter_monitor.detectors.precision import Precision
from holter_monitor.engine import Engine
from holter_monitor.findings import Severity
from holter_monitor.reference import build
from holter_monitor.stream.steps import RunFacts, Step, Topology

SHAPES = {"embed": (512, 64), "layers.0.mlp.up": (256, 64), "layers.1.mlp.up": (256, 64), "layers.0.norm": (64,), "layers.1.norm": (64,)}


def table(dtype, norms=None):
    tensors = tuple(
        Tensor(name, norms if norms and "norm" in name else dtype, shape, {"dp": "R"}, "declared") for name, shape in SHAPES.items()
    )
    return Layout(tensors, sizes={"dp": 2}).to_json()


def watch(dtype, rank=0, norms=None, word="watch"):
    return {"event": word, "rank": rank, "step": None, "time_ns": 0, "attrs": {"mesh": {"dp": [rank, 2]}, "table": table(dtype, norms)}}


def against(dtype):
    detector = Precision()
    detector.begin(
        RunFacts(
            run="r", reference=build("fp32-baseline", [], [], precision=dict.fromkeys(("embed", "layers.*.mlp.up", "layers.*.norm"), dtype))
        )
    )
    return detector


def test_weights_in_bf16_where_the_reference_has_them_in_float32_are_said_before_the_first_step():
    """S11 of the playbook: seen there as a loss that differed, in a new library whose data-parallel wrapper kept weights and gradients in bf16."""
    (finding,) = against("float32").hear(watch("bfloat16", norms="float32"), Topology())
    assert finding.kind == "reference_gap" and finding.severity == Severity.WARNING and finding.onset_step == 0
    assert finding.summary.startswith(
        "100% of the parameters are kept in bfloat16, fp32-baseline has them in float32 (embed, layers.*.mlp.up)"
    )
    assert finding.evidence["dtype"] == "bfloat16" and finding.evidence["reference_dtype"] == "float32"


@pytest.mark.parametrize("norms", [None, "float32"])
def test_the_same_dtypes_and_a_norm_in_float32_are_met_with_silence(norms):
    assert not against("bfloat16").hear(watch("bfloat16", norms=norms), Topology())


def test_more_precision_than_the_reference_is_recorded_and_warns_nobody():
    (finding,) = against("bfloat16").hear(watch("float32"), Topology())
    assert finding.severity == Severity.INFO


def test_an_attempt_that_keeps_its_weights_otherwise_than_the_one_before_is_said_and_is_over_with_the_next():
    engine = Engine(RunFacts(run="r"), [Precision])
    said = []
    for attempt, dtype in enumerate(("float32", "bfloat16", "bfloat16")):
        said.append(engine.hear(watch(dtype)))
        engine = Engine.restore(engine.snapshot(), [Precision])
        for number in range(10):
            assert not engine.feed_step(Step.of(10 * attempt + number, {"loss": 2.0}, attempt=str(attempt)))
    assert not said[0]
    assert [(f.scope, f.onset_step, f.is_over) for f in said[1]] == [("precision, attempt before", 9, False)]
    assert "attempt 1 has them in float32" in said[1][0].summary
    assert [(f.scope, f.end_step) for f in said[2]] == [("precision, attempt before", 19)], "now as the one before"


def test_stages_that_tell_theirs_one_after_the_other_are_one_finding():
    detector = against("float32")
    first, second = (detector.hear(watch("bfloat16", rank=rank), Topology()) for rank in (0, 1))
    assert len(first) == 1 and not second


def test_any_rank_of_a_big_run_that_tells_again_begins_an_attempt():
    detector = Precision()
    for rank in (*range(5000), 4999):
        detector.hear(watch("float32", rank=rank), Topology())
    assert (detector.attempts, detector.told) == (2, {4999})


@pytest.mark.parametrize("broken", [{"kinds": []}, {"tensors": [["a", 7]], "kinds": [], "fraction": 1, "model_axes": [], "sizes": {}}])
def test_what_is_no_table_says_nothing(broken):
    event = watch("bfloat16")
    event["attrs"]["table"] = broken
    assert not against("float32").hear(event, Topology())
