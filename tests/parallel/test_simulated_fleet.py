"""Bugs of parallel training on a simulated fleet of 8 ranks or fewer: found, named, and nothing said of a healthy one."""

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from fleet import Fleet  # noqa: E402

pytestmark = pytest.mark.torch


def kinds(findings):
    return {finding.kind for finding in findings}


def run(fleet, steps, **step):
    for _ in range(steps):
        fleet.step(**step)
    return fleet.finish()


@pytest.mark.parametrize("seed", range(20))
def test_a_healthy_fleet_is_met_with_silence(seed):
    fleet = Fleet(tp=2 if seed % 2 else 4, dp=2 if seed % 2 else 1, seed=seed).watch(fraction=0.3)
    assert run(fleet, 12, noise=1e-3 if seed % 3 == 0 else 0.0).findings(quiet=False) == []


@pytest.mark.parametrize("tp", [2, 4])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_seed_on_tensor_parallel_ranks_is_found_before_the_first_step(tp, seed):
    findings = Fleet(tp=tp, seed_of=lambda t, d: seed).watch().findings()
    assert kinds(findings) == {"tp_duplicate_shards"}
    assert findings[0].severity == 3
    assert findings[0].ranks == tuple(range(tp))
    assert findings[0].detected_step == 0
    assert "mlp" in findings[0].summary
    assert "seed" in findings[0].evidence["remedy"]


@pytest.mark.parametrize("forgotten", [["layers.0.norm"], ["layers.0.norm", "layers.1.norm"]])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_norm_whose_gradient_is_not_summed_is_found_after_one_step_and_named(forgotten, seed):
    reduced = {"layers.0.norm", "layers.1.norm"} - set(forgotten)
    findings = run(Fleet(seed=seed).watch(), 8, reduce_norms=reduced).findings()
    assert kinds(findings) == {"replica_mismatch"}
    assert findings[0].detected_step == 0
    assert findings[-1].severity == 3
    assert set(findings[-1].evidence["tensors"]) == set(forgotten)
    assert findings[-1].evidence["axes"] == ["tp"]


@pytest.mark.parametrize("fraction", [1.0, 0.1])
def test_a_rank_that_skips_the_reduction_is_found_at_that_step(fraction):
    fleet = Fleet().watch(fraction=fraction)
    for step in range(6):
        fleet.step(skip_sync=(0, 1) if step == 3 else ())
    findings = fleet.finish().findings()
    assert kinds(findings) == {"replica_mismatch"}
    assert findings[0].onset_step == findings[0].detected_step == 3
    assert findings[0].evidence["axes"] == ["dp"]


@pytest.mark.parametrize("bit", [0, 12, 23, 30])
def test_a_bit_that_flips_between_steps_is_found_at_rest_with_rank_element_and_bit(bit):
    fleet = Fleet(seed=bit).watch()
    for step in range(4):
        fleet.step()
        if step == 2:
            fleet.rank(1, 1).params["layers.1.mlp.w1"].data.view(torch.int32)[5, 7] ^= 1 << bit
    findings = fleet.finish().findings()
    at_rest = next(finding for finding in findings if finding.kind == "memory_corruption")
    assert at_rest.ranks == (3,)
    assert at_rest.detected_step == 2
    assert at_rest.evidence["located"] == f"layers.1.mlp.w1[5, 7], bit {bit}"
    mismatch = next(finding for finding in findings if finding.kind == "replica_mismatch")
    assert set(mismatch.ranks) == {1, 3}
    assert "layers.1.mlp.w1" in mismatch.summary or mismatch.evidence["suspects"] > 0


def test_a_flipped_norm_names_the_rank_by_majority():
    fleet = Fleet(tp=4, dp=2).watch(at_rest=False)
    fleet.step()
    fleet.step()
    fleet.rank(2, 0).params["layers.0.norm"].data.view(torch.int32)[3] ^= 1 << 20
    fleet.step()
    findings = fleet.finish().findings()
    assert kinds(findings) == {"replica_mismatch"}
    assert findings[0].ranks == (2,)
    assert "layers.0.norm[3]" in findings[0].summary


def test_a_flipped_adam_moment_shows_in_the_weights_one_step_later():
    fleet = Fleet().watch()
    fleet.step()
    rank = fleet.rank(0, 1)
    rank.optimizer.state[rank.params["layers.0.mlp.w1"]]["exp_avg"].view(torch.int32)[2, 9] ^= 1 << 30
    fleet.step()
    findings = fleet.finish().findings()
    assert "layers.0.mlp.w1[2, 9]" in findings[0].summary
    assert findings[0].detected_step == 1


def test_a_learning_rate_that_differs_names_the_rank():
    fleet = Fleet(tp=2, dp=4).watch()
    fleet.step()
    for group in fleet.rank(0, 3).optimizer.param_groups:
        group["lr"] *= 1.01
    fleet.step()
    said = [finding for finding in fleet.finish().findings() if finding.kind == "rank_disagreement"]
    assert [(finding.scope, finding.ranks, finding.detected_step) for finding in said] == [("lr", (6,), 1)]


def test_a_tensor_parallel_rank_on_another_batch_is_found():
    fleet = run(Fleet(tp=4, dp=1).watch(), 3, feed=lambda t, d, batches: (batches[0] + (t == 2)) % 64)
    said = [finding for finding in fleet.findings() if finding.kind == "rank_disagreement"]
    assert [(finding.scope, finding.ranks) for finding in said] == [("batch", (2,))]


def test_data_parallel_ranks_on_the_same_batch_are_found():
    fleet = run(Fleet(dp=4).watch(), 3, feed=lambda t, d, batches: batches[0 if d == 3 else d])
    said = [finding for finding in fleet.findings() if finding.kind == "rank_disagreement"]
    assert [finding.scope for finding in said] == ["same batch"]
    assert said[0].ranks == (0, 1, 6, 7)


def test_a_replica_initialised_per_rank_is_found_before_the_first_step():
    fleet = Fleet()
    for number, rank in enumerate(fleet.ranks):
        rank.params["layers.1.norm"].data += 0.01 * number
    findings = fleet.watch().findings()
    assert kinds(findings) == {"replica_mismatch"}
    assert findings[0].severity == 3
    assert "initialised" in findings[0].evidence["usual_cause"]


@pytest.mark.parametrize("tp", [2, 4])
def test_duplicated_shards_are_found_when_holter_comes_late(tp):
    """Attached after 120 steps with rank-local gradient noise; the 1,500 steps of the specification are in the soak."""
    fleet = Fleet(tp=tp, dp=1, seed_of=lambda t, d: 5)
    for _ in range(120):
        fleet.step(noise=1e-6)
    assert kinds(fleet.watch().findings()) == {"tp_duplicate_shards"}


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
def test_duplicated_shards_are_found_by_the_first_fingerprint_after_1500_steps(seed):
    fleet = Fleet(tp=2, dp=1, seed_of=lambda t, d: seed)
    for _ in range(1500):
        fleet.step(noise=1e-6)
    assert kinds(fleet.watch().findings()) == {"tp_duplicate_shards"}


def test_grouped_key_value_heads_are_excused_by_declaration_and_softly_guessed_without():
    """TP 4 with two key-value heads: ranks 0, 1 and ranks 2, 3 hold the same."""
    from holter.parallel import replicated_in_blocks

    def of(declare):
        fleet = Fleet(tp=4, dp=1, seed=3)
        for t, rank in enumerate(fleet.ranks):
            generator = torch.Generator().manual_seed(100 + t // 2)
            rank.params["layers.0.attn.k_proj"] = torch.nn.Parameter(torch.randn(16, 32, generator=generator))
        fleet.watch(declare=declare)
        for _ in range(8):
            for rank in fleet.ranks:
                for param in rank.params.values():
                    param.grad = torch.zeros_like(param)
                rank.optimizer.step()
        return fleet.finish().findings(quiet=False)

    from fleet import DECLARED

    assert of({**DECLARED, "k_proj": {"tp": replicated_in_blocks(2)}}) == []
    (guess,) = of({**DECLARED, "k_proj": {"tp": ("S", 0)}})
    assert guess.severity == 1
    assert "key and value heads" in guess.summary


def test_zero_initialised_shards_say_nothing():
    fleet = Fleet(seed=4)
    for rank in fleet.ranks:
        rank.params["layers.0.lora.b"] = torch.nn.Parameter(torch.zeros(16, 32))
    fleet.watch(declare={r"embed|head|w1|lora": {"tp": ("S", 0)}, "w2": {"tp": ("S", 1)}, "norm": {"tp": "R"}})
    assert fleet.findings(quiet=False) == []


def test_shards_with_a_common_mean_are_unlike_all_the_same():
    """Real vocabulary shards correlate at 0.44 because their columns share means; that is no duplicate."""
    fleet = Fleet(tp=4, dp=1, seed=6)
    common = torch.randn(32, generator=torch.Generator().manual_seed(9)) * 0.045
    shards = [rank.params["embed"].data.add_(common) for rank in fleet.ranks]
    cosine = torch.corrcoef(torch.stack([shard.flatten() for shard in shards]))
    assert cosine[0, 1] > 0.4
    assert run(fleet.watch(), 10).findings(quiet=False) == []
