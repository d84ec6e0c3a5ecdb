"""The watch on its rank: placements from every source, failures that switch it off once, nothing where nothing is recorded."""

import copy
import logging
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

import holter  # noqa: E402
from fleet import Fleet, Recorded  # noqa: E402
from holter.fingerprint import BYTES  # noqa: E402
from holter.parallel import replicated_in_blocks  # noqa: E402
from holter.parallel.mesh import Mesh, mesh_of  # noqa: E402
from holter.parallel.placements import discover  # noqa: E402
from holter.parallel.watching import begin  # noqa: E402
from holter_monitor.consistency.rounds import words_of  # noqa: E402
from holter_monitor.detectors.fingerprints import Fingerprints  # noqa: E402
from holter_monitor.engine import Engine  # noqa: E402
from holter_monitor.stream.steps import RunFacts  # noqa: E402
from messages import Messages  # noqa: E402

pytestmark = pytest.mark.torch
MESH = Mesh({"dp": 0, "tp": 1}, {"dp": 2, "tp": 2}, "mesh")


def param(*shape, **marks):
    value = torch.nn.Parameter(torch.randn(*shape))
    for name, mark in marks.items():
        setattr(value, name, mark)
    return value


def axes(params, declare=None, mesh=MESH):
    return {entry.tensor.name: (dict(entry.tensor.axes), entry.tensor.source) for entry in discover(params, mesh, declare or {})}


def test_megatron_marks_say_what_is_sharded_and_what_is_not():
    """Attributes as Megatron-LM sets them (core/tensor_parallel/layers.py): a missing mark is a replica."""
    found = axes({
        "module.decoder.linear_fc1.weight": param(8, 4, tensor_model_parallel=True, partition_dim=0),
        "module.decoder.linear_fc2.weight": param(4, 8, tensor_model_parallel=True, partition_dim=1),
        "module.decoder.layernorm.weight": param(4),
        "module.decoder.router.weight": param(4, 4, tensor_model_parallel=False),
    })  # fmt: skip
    assert found["decoder.linear_fc1.weight"] == ({"dp": "R", "tp": "S0"}, "megatron")
    assert found["decoder.linear_fc2.weight"][0]["tp"] == "S1"
    assert found["decoder.layernorm.weight"][0]["tp"] == "R"
    assert found["decoder.router.weight"][0]["tp"] == "R"


def test_experts_of_megatron_are_shards_over_ep():
    mesh = Mesh({"ep": 0, "tp": 0}, {"ep": 2, "tp": 1}, "mesh")
    marks = {"a": param(4, 4, tensor_model_parallel=False), "b": param(4, 4, allreduce=False, tensor_model_parallel=False)}
    assert [how["ep"] for how, _ in axes(marks, mesh=mesh).values()] == ["R", "S0"]


def test_nanotron_says_which_dimension_is_shorter_than_the_whole():
    sharded = param(4, 8, is_sharded=True, get_sharded_info=lambda: SimpleNamespace(unsharded_shape=(4, 16)))
    found = axes({"w": sharded, "n": param(4, is_sharded=False)})
    assert found["w"] == ({"dp": "R", "tp": "S1"}, "nanotron")
    assert found["n"][0]["tp"] == "R"


def test_what_nobody_explains_is_a_replicated_norm_or_unknown():
    found = axes({"_orig_mod.layers.0.norm.weight": param(4), "layers.0.w": param(4, 4)})
    assert found["layers.0.norm.weight"] == ({"dp": "R", "tp": "R"}, "guessed")
    assert found["layers.0.w"][0]["tp"] == "?"


def test_a_declaration_wins_and_a_wrong_one_is_explained():
    declare = {r"k_proj": {"tp": replicated_in_blocks(2)}, r"router": {"tp": "R"}, r"experts": {"tp": ("S", 0)}, r"rope": "skip"}
    found = axes({"k_proj": param(4, 4), "router": param(4, 4), "experts": param(4, 4), "rope": param(4, 4)}, declare)
    assert {name: how["tp"] for name, (how, _) in found.items()} == {"k_proj": "B2", "router": "R", "experts": "S0"}
    with pytest.raises(ValueError, match=r'\("S", dimension\)'):
        axes({"w": param(4, 4)}, {"w": {"tp": "sharded"}})


def test_fp32_masters_are_watched_where_they_are_whole():
    half = torch.nn.Parameter(torch.randn(4, 4, dtype=torch.bfloat16))
    half.main_param = half.detach().float()
    (entry,) = discover({"w": half}, MESH, {})
    assert entry.tensor.dtype == "float32"
    assert discover({"w": half}, MESH, {}, masters=False)[0].tensor.dtype == "bfloat16"


def test_a_mesh_that_cannot_be_understood_is_explained():
    with pytest.raises(TypeError, match="DeviceMesh"):
        mesh_of("tp=2", {})


def test_a_failure_switches_the_watch_off_once_and_training_goes_on(caplog):
    events = []
    params = {"w": param(64, 64)}
    optimizer = torch.optim.SGD(params.values(), lr=0.1)
    begin(Recorded(0, events), params, optimizer, mesh={"dp": (0, 2)}, every=1)
    params["w"].data = torch.empty(0)  # as a framework that frees its shards would
    with caplog.at_level(logging.WARNING, "holter"):
        for _ in range(5):
            params["w"].grad = torch.zeros_like(params["w"])
            optimizer.step()
    assert [event["event"] for event in events].count("watch_off") == 1
    assert len([record for record in caplog.records if "fingerprints are off" in record.message]) == 1
    assert not optimizer._optimizer_step_post_hooks


def test_fingerprints_change_nothing_of_the_training():
    def trained(watched):
        fleet = Fleet(seed=3)
        if watched:
            fleet.watch(every=2)
        state = torch.get_rng_state()
        for _ in range(4):
            fleet.step()
        assert torch.equal(torch.get_rng_state(), state)
        return [param.detach().clone() for rank in fleet.ranks for param in rank.params.values()]

    assert all(torch.equal(a, b) for a, b in zip(trained(True), trained(False), strict=True))


def test_a_switched_off_run_takes_watch_and_batch_and_does_nothing():
    run = holter.init(environment={"HOLTER_DISABLED": "1"})
    model = torch.nn.Linear(4, 4)
    run.watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
    run.batch(torch.ones(2), position=3)
    run.finish()


def test_an_optimizer_without_hooks_is_wrapped_and_let_go():
    class Plain:
        steps = 0

        def step(self):
            self.steps += 1
            return "kept"

    events, plain = [], Plain()
    watch = begin(Recorded(0, events), {"w": param(64, 64)}, plain, mesh={"dp": (0, 2)}, every=1)
    assert [plain.step() for _ in range(3)] == ["kept"] * 3
    watch.finish()
    assert plain.step() == "kept"
    assert sum(event["event"] == "fingerprint" for event in events) == 4
    assert plain.steps == 4


def test_a_fingerprint_is_512_bytes_and_rubbish_is_none():
    events = Fleet().watch().events
    words = words_of(next(event for event in events if event["event"] == "fingerprint"))
    assert words.nbytes == BYTES == 512
    for data in (None, 7, "", "!", "AAAA", "A" * 684):
        assert words_of({"event": "fingerprint", "attrs": {"data": data}}) is None


def faulty_events():
    fleet = Fleet(seed_of=lambda t, d: 1).watch(fraction=0.3)
    for step in range(6):
        fleet.step(skip_sync=(0, 1) if step == 2 else ())
    return fleet.finish().events


def heard(engine, events):
    return [finding for event in events for finding in engine.hear(event)]


@pytest.mark.parametrize("cut", [0, 4, 9, 18, 27])
def test_detection_continues_after_a_restart_as_if_nothing_had_happened(cut):
    events = faulty_events()
    whole = Engine(RunFacts(run="r", world_size=4), [Fingerprints])
    heard(whole, events[:cut])
    again = Engine.restore(whole.snapshot(), [Fingerprints])
    assert heard(again, copy.deepcopy(events[cut:])) == heard(whole, events[cut:])


def test_equal_seeds_on_tensor_parallel_ranks_are_one_message_at_step_0_that_says_what_to_change(tmp_path):
    """S4 of the playbook: found there after a trillion tokens, by evaluations."""
    fleet, messages = Fleet(seed_of=lambda t, d: 1).watch(), Messages(tmp_path, world_size=4)
    fleet.step()
    for event in fleet.finish().events:
        messages.hear(event["event"], event["rank"], event.get("step"), **event["attrs"])
    messages.wait(10)
    (notice,) = messages.notices
    (said,) = messages.shown
    assert (notice.transition, notice.severity, notice.kind, notice.onset_step) == ("trigger", "critical", "tp_duplicate_shards", 0)
    assert "Why: ranks that hold different parts of a tensor were initialised with the same seed" in said
    assert "Do: add the tensor-parallel rank to the seed of initialisation, and start again" in said


def test_a_node_that_delivers_late_is_waited_for():
    """Rank 3's node was cut off: its events come after all others'."""
    events = faulty_events()
    late = [event for event in events if event["rank"] != 3] + [event for event in events if event["rank"] == 3]
    kinds = [
        {finding.kind for finding in heard(Engine(RunFacts(run="r", world_size=4), [Fingerprints]), order)} for order in (events, late)
    ]
    assert kinds[0] == kinds[1] == {"tp_duplicate_shards", "replica_mismatch"}


def test_a_rank_that_switched_itself_off_is_not_waited_for():
    events = [event for event in faulty_events() if event["rank"] != 3]
    events.insert(0, {"event": "watch_off", "rank": 3, "step": 0, "time_ns": 0, "attrs": {"reason": "x"}})
    findings = heard(Engine(RunFacts(run="r", world_size=4), [Fingerprints]), events[:9])
    assert {finding.kind for finding in findings} == {"tp_duplicate_shards"}


def test_a_new_attempt_with_other_weights_ends_the_trouble():
    engine = Engine(RunFacts(run="r", world_size=4), [Fingerprints])
    heard(engine, faulty_events())
    fleet = Fleet(seed=8).watch()
    for _ in range(8):
        fleet.step()
    ended = {finding.kind for finding in heard(engine, fleet.finish().events) if finding.is_over}
    assert ended == {"tp_duplicate_shards", "replica_mismatch"}


def test_no_operator_of_the_hooks_waits_for_the_device():
    """Without a GPU at hand: nothing reads a value on the host, and nothing has a shape that depends on values."""
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = set()

    class Listening(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    fleet = Fleet(seed=2).watch(fraction=0.4)
    fleet.step()
    watch = fleet.ranks[0].watch
    watch.batch({"input_ids": torch.arange(64)})
    with Listening():
        for _ in range(6):
            watch._before()
            watch._after()
    assert "sum" in seen
    assert not seen & {"_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "_unique2", "is_nonzero", "bincount"}


def test_preflight_says_when_ranks_are_missing(tmp_path):
    answer = holter.preflight(
        torch.nn.Linear(64, 64), {"tp": (0, 2)}, folder=tmp_path, seconds=0.1, environment={"WORLD_SIZE": "2", "RANK": "0"}
    )
    assert (answer.compared, answer.world_size, answer.is_clean) == (1, 2, False)
    assert "left no fingerprint" in answer.problem


def test_preflight_never_raises_for_what_it_cannot_do(tmp_path):
    answer = holter.preflight(object(), folder=tmp_path, environment={"RANK": "0"})
    assert "no fingerprint" in answer.problem


@pytest.mark.parametrize("content", ["", "[1]", "{}", "nothing"])
def test_the_preflight_command_refuses_what_is_no_fingerprint(tmp_path, content, capsys):
    from holter.cli import main

    if content:
        (tmp_path / "0.json").write_text(content)
    assert main(["preflight", "--fingerprints", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err or content == "nothing"


def test_ranks_that_nobody_explained_are_no_replicas():
    """A tensor-parallel framework that we do not know must not be paged for its shards."""
    guessed = Mesh({"dp": 0}, {"dp": 8}, "guessed: data parallel")
    assert axes({"w": param(4, 4)}, mesh=guessed)["w"] == ({"dp": "?"}, "guessed")


def test_what_the_attempt_before_still_delivers_is_left_out():
    engine = Engine(RunFacts(run="r", world_size=4), [Fingerprints])
    before = faulty_events()
    heard(engine, before[:-2])
    fleet = Fleet(seed_of=lambda t, d: 1).watch()
    fresh = fleet.finish().events
    late = [fresh[0], *before[-2:], *fresh[1:]]
    assert [finding.kind for finding in heard(engine, late) if finding.detected_step == 0] == []
    rounds = engine._detectors[0].rounds
    assert rounds.done == 0 and not rounds.open


@pytest.mark.parametrize("is_tied", [True, False])
def test_tied_tensors_are_compared_over_pipeline_stages(is_tied):
    events, weight = [], torch.randn(64, 32)
    for stage, name in enumerate(("embed", "head")):
        value = torch.nn.Parameter(weight + (0.0 if is_tied else 1e-3 * stage))
        params = {name: value, f"layers.{stage}.w": param(32, 32)}
        begin(Recorded(stage, events), params, None, mesh={"pp": (stage, 2), "tp": (0, 1)}, tied=[("embed", "head")])
    findings = heard(Engine(RunFacts(run="r", world_size=2), [Fingerprints]), events)
    assert [finding.scope for finding in findings] == ([] if is_tied else ["tied tensors"])
