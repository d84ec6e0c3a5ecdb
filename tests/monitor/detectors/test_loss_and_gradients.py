"""Loss and gradient detectors: seeded streams with the steps where they must speak, normal changes where they must not, the playbook's spikes."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from holter_monitor.detectors.grad_explosion import GradExplosion
from holter_monitor.detectors.grad_vanishing import GradVanishing
from holter_monitor.detectors.loss_divergence import LossDivergence
from holter_monitor.detectors.loss_noise import LossNoise
from holter_monitor.detectors.loss_plateau import LossPlateau
from holter_monitor.detectors.loss_shift import LossShift
from holter_monitor.detectors.loss_spike import LossSpike
from holter_monitor.detectors.non_finite import NonFinite
from holter_monitor.engine import Engine
from holter_monitor.findings import Severity
from holter_monitor.stream.steps import RunFacts, Step

FAMILY = (LossSpike, LossDivergence, LossShift, LossNoise, LossPlateau, NonFinite, GradExplosion, GradVanishing)


def curve(count=2000, seed=0, noise=0.03):
    """log loss as a run has it: falling with log(time), noise on top."""
    rng = np.random.default_rng(seed)
    return np.log(2.0 + 6.0 * (np.arange(count) + 10.0) ** -0.4) + noise * rng.standard_normal(count)


def grads(count=2000, seed=1):
    return np.log(0.5) + 0.15 * np.random.default_rng(seed).standard_t(4, count)


def watch(log_loss, log_grad=None, *, events=(), steps=None, detectors=FAMILY, scale=1.0, extra=None):
    engine, said = Engine(RunFacts(run="r"), detectors), []
    declared = dict(events)
    steps = range(len(log_loss)) if steps is None else steps
    for index, (number, height) in enumerate(zip(steps, log_loss, strict=True)):
        values = {"loss": scale * float(np.exp(height))}
        if log_grad is not None:
            values["grad_norm"] = float(np.exp(log_grad[index]))
        values.update({name: float(series[index]) for name, series in (extra or {}).items()})
        word = declared.get(index)
        hung = [{"event": word, "rank": None, "step": number, "time_ns": 0, "attrs": {}}] if word else []
        said += engine.feed_step(Step.of(number, values, time=float(index), attempt="1", events=hung))
    return said


def kinds(findings):
    return {finding.kind for finding in findings if finding.severity >= Severity.WARNING}


def first(findings, kind):
    return next(finding for finding in findings if finding.kind == kind)


@pytest.mark.parametrize("seed", range(4))
def test_a_calm_run_is_met_with_silence(seed):
    assert watch(curve(seed=seed), grads(seed=seed)) == []


def test_an_isolated_spike_is_seen_at_its_step_and_ends_as_a_warning():
    loss = curve()
    loss[1200] += 0.5
    begun, ended = watch(loss)
    assert (begun.kind, begun.onset_step, begun.detected_step, begun.severity) == ("loss_spike", 1200, 1200, Severity.WARNING)
    assert (ended.onset_step, ended.evidence["shape"], ended.severity) == (1200, "isolated", Severity.WARNING)
    assert ended.end_step is not None
    assert begun.evidence["rewind_to"] == 1199


def test_a_small_rise_with_its_wake_is_a_spike_and_a_small_rise_alone_is_none():
    loss = curve(noise=0.02)
    loss[1200:1212] += 0.14 * np.exp(-np.arange(12) / 5)
    assert first(watch(loss), "loss_spike").onset_step == 1200
    alone = curve(noise=0.02)
    alone[1200] += 0.14
    assert watch(alone) == []


def test_a_small_rise_counts_when_the_gradient_jumps_with_it():
    loss, grad = curve(noise=0.02), grads()
    loss[1200] += 0.15
    grad[1200] += 3.0
    assert first(watch(loss, grad, detectors=[LossSpike]), "loss_spike").detected_step == 1200


def test_a_spike_that_stays_up_pages():
    loss = curve()
    loss[1200:] += 0.4
    said = [finding for finding in watch(loss, detectors=[LossSpike]) if finding.severity == Severity.CRITICAL]
    assert said[0].onset_step == 1200
    assert said[0].evidence["shape"] in ("shifting", "diverging")
    assert said[0].detected_step <= 1260


def test_isolated_outliers_that_have_become_a_habit_warn_no_more():
    loss = curve(count=4000)
    loss[1000:4000:150] += 0.45
    said = [finding for finding in watch(loss, detectors=[LossSpike]) if not finding.is_over]
    assert [finding.onset_step for finding in said] == [1000, 1150, 1300]


def test_outliers_far_apart_are_a_habit_too_and_a_much_higher_one_is_not():
    loss = curve(count=24_000)
    loss[4000::4000] += 0.45
    loss[23_000] += 1.2
    said = [finding for finding in watch(loss, detectors=[LossSpike]) if not finding.is_over]
    assert [finding.onset_step for finding in said] == [4000, 8000, 12_000, 23_000]


def test_a_loss_below_zero_is_watched_too():
    """A bound or a log-likelihood: no logarithm, the same rule on the values."""
    rng, engine, said = np.random.default_rng(0), Engine(RunFacts(run="r"), [LossSpike]), []
    for number in range(1000):
        value = -3.0 + 0.05 * rng.standard_normal() + 2.0 * (number == 800)
        said += engine.feed_step(Step.of(number, {"loss": value}))
    assert [finding.onset_step for finding in said] == [800, 800]
    assert said[0].evidence["level"] == pytest.approx(-3.0, abs=0.1)


@pytest.mark.parametrize("word", ["data_stage_change", "batch_size_change", "seq_len_change"])
def test_a_declared_change_excuses(word):
    loss, grad = curve(), grads()
    loss[1000:] += 0.3
    grad[1000:] -= 0.5
    assert watch(loss, grad, events={1000: word}.items()) == []


def test_a_slow_rise_is_a_divergence():
    loss = curve()
    loss[1000:] += 0.25 * (np.arange(1000) / 500) ** 1.5
    finding = first(watch(loss), "loss_divergence")
    assert 950 <= finding.onset_step < finding.detected_step < 1500


def test_a_fall_that_stops_is_a_plateau_and_a_decayed_rate_excuses():
    loss = curve(count=3000, noise=0.01)
    loss[600:] = loss[600:] - curve(count=3000, noise=0.0)[600:] + curve(count=3000, noise=0.0)[600]
    finding = first(watch(loss), "loss_plateau")
    assert 400 <= finding.onset_step <= 800
    rate = np.where(np.arange(3000) < 600, 1e-3, 1e-5)
    assert watch(loss, extra={"lr": rate}) == []


def test_a_loss_that_grows_noisy_is_named():
    loss, rng = curve(), np.random.default_rng(5)
    loss[1200:] += 0.09 * rng.standard_normal(800)
    finding = first(watch(loss, detectors=[LossNoise]), "loss_noise")
    assert 1100 <= finding.onset_step <= 1250
    assert finding.evidence["times"] > 1.8


def test_a_resume_at_another_height_is_a_shift_and_a_clean_one_is_none():
    before, after = curve(seed=1)[:1000], curve(seed=2)[800:1400]
    steps = [*range(1000), *range(800, 1400)]
    assert watch(np.r_[before, after], steps=steps) == []
    finding = first(watch(np.r_[before, after + 0.1], steps=steps), "loss_shift")
    assert finding.onset_step == 800
    assert finding.detected_step < 850
    assert finding.evidence["after"] == "resume"


def test_a_training_begun_again_in_the_same_log_is_no_incident():
    """Several trainings one after another in one log, or a crash before the first checkpoint: what the loss had reached says nothing of a new model."""
    trainings = [curve(seed=seed)[:900] for seed in range(3)]
    steps = [number for _ in trainings for number in range(0, 45_000, 50)]
    assert kinds(watch(np.concatenate(trainings), steps=steps)) == set()
    trainings[2][500] += 1.5
    assert first(watch(np.concatenate(trainings), steps=steps), "loss_spike").onset_step == 25_000


def test_gradients_explode_and_fade():
    grad = grads()
    grad[1200:1260] += np.log(30.0) * np.clip(np.arange(60) / 20, 0, 1)
    assert 1195 <= first(watch(curve(), grad), "grad_explosion").onset_step <= 1220
    faded = grads()
    faded[1200:] -= np.log(10.0) * np.clip(np.arange(800) / 60, 0, 1)
    assert 1150 <= first(watch(curve(), faded), "grad_vanishing").onset_step <= 1300


def test_heavy_tailed_gradients_are_nobodys_pager():
    grad = np.log(0.5) + 0.15 * np.random.default_rng(0).standard_t(2.5, 5000).clip(-8, 12)
    assert watch(curve(count=5000), grad) == []


def test_a_nan_of_one_rank_behind_a_finite_mean_is_found_and_pages_when_it_stays():
    engine, said = Engine(RunFacts(run="r", world_size=4), [NonFinite]), []
    for number in range(40):
        values = np.full((1, 4), 2.0)
        values[0, 2] = np.nan if 20 <= number < 24 else 2.0
        step = Step.of_ranks(number, np.arange(4, dtype=np.int32), {"loss": 0}, values, np.ones((1, 4), bool), attempt="1")
        assert np.isfinite(step.mean("loss"))
        said += engine.feed_step(step)
    assert [(finding.severity.word, finding.detected_step, finding.ranks) for finding in said] == [
        ("warning", 20, (2,)),
        ("critical", 22, (2,)),
        ("critical", 33, ()),
    ]
    assert said[-1].is_over


def test_scaling_the_loss_and_shifting_the_steps_changes_nothing():
    loss = curve()
    loss[700] += 0.6
    loss[1400:] += 0.3
    plain = [(f.kind, f.severity, f.onset_step, f.detected_step) for f in watch(loss, grads())]
    assert plain
    scaled = [(f.kind, f.severity, f.onset_step, f.detected_step) for f in watch(loss, grads(), scale=2.0**10)]
    shifted = watch(loss, grads(), steps=range(1_000_000, 1_000_000 + len(loss)))
    assert scaled == plain
    assert [(f.kind, f.severity, f.onset_step - 1_000_000, f.detected_step - 1_000_000) for f in shifted] == plain


def playbook(name):
    shared = os.environ.get("HOLTER_SHARED") or Path(__file__).resolve().parents[4] / "shared"
    path = Path(shared) / "traces" / "playbook" / name
    if not path.exists():
        pytest.skip(f"the playbook's trace {name} is not here: set HOLTER_SHARED")
    with path.open() as lines:
        return list(csv.DictReader(lines))


def playbook_run(name, run):
    rows = sorted((float(row["tokens"]), float(row["loss"])) for row in playbook(name) if row["run_name"].strip() == run)
    assert rows
    return np.array(rows).T


def test_the_playbooks_spike_that_recovers_does_not_page():
    """S8."""
    tokens, loss = playbook_run("spike_loss.csv", "Recoverable spikes")
    begun, ended = watch(np.log(loss))
    assert tokens[begun.onset_step] / 1e9 == pytest.approx(40.24, abs=0.1)
    assert ended.evidence["shape"] == "isolated"
    assert max(begun.severity, ended.severity) == Severity.WARNING


def test_the_playbooks_spike_that_does_not_recover_pages_with_a_rewind_point():
    """S9: a warning at the precursor (33.25B), a page at 36.1-36.6B, back to before 33.25B."""
    tokens, loss = playbook_run("spike_loss.csv", "Non recoverable spikes")
    said = [finding for finding in watch(np.log(loss)) if finding.kind == "loss_spike"]
    assert tokens[said[0].detected_step] / 1e9 == pytest.approx(33.25, abs=0.1)
    page = next(finding for finding in said if finding.severity == Severity.CRITICAL)
    assert 36.0 <= tokens[page.detected_step] / 1e9 <= 36.7
    assert tokens[page.evidence["rewind_to"]] / 1e9 < 33.25


def test_the_playbooks_healthy_run_is_met_with_silence():
    """S13."""
    _, loss = playbook_run("tp_debug_fix_loss.csv", "TP2 after fix")
    assert watch(np.log(loss)) == []


def wandering(count=2000, seed=3):
    """log loss whose noise is alike from step to step, as where spikes follow one another closely."""
    rng = np.random.default_rng(seed)
    walk = np.zeros(count)
    for step in range(1, count):
        walk[step] = 0.6 * walk[step - 1] + 0.08 * rng.standard_normal()
    return walk


def test_a_front_and_the_wake_behind_it_are_judged_together():
    """Five deviations, and four steps after it that stand out only together."""
    loss = wandering()
    loss[1200:1206] += [0.62, 0.34, 0.26, 0.24, 0.24, 0.24]
    said = watch(loss)
    assert [(finding.kind, finding.onset_step) for finding in said if finding.severity >= Severity.WARNING][:1] == [("loss_spike", 1200)]
    assert said[0].detected_step <= 1205
    alone = wandering()
    alone[1200:1206] = [loss[1200], 0.0, 0.0, 0.0, 0.0, 0.0]
    assert watch(alone) == []


def test_two_outliers_in_a_row_of_a_heavy_tailed_loss_are_no_front_and_wake():
    loss = curve(noise=0.01)
    for step in (1200, 1203):
        loss[step] += 0.08
    assert watch(loss) == []


def test_spikes_that_follow_one_another_closely_are_all_found():
    """Each is judged by the calm: the last ones stand about as high above it as the first."""
    loss = wandering()
    for start in range(600, 1700, 110):
        loss[start : start + 6] += [0.75, 0.5, 0.4, 0.35, 0.3, 0.25]
    begun = [finding for finding in watch(loss) if finding.kind == "loss_spike" and finding.end_step is None]
    assert [round(finding.onset_step, -1) for finding in begun] == list(range(600, 1700, 110))
    scores = [finding.score for finding in begun]
    assert np.mean(scores[-4:]) > 0.85 * np.mean(scores[:4])


def test_a_single_step_below_a_tenth_is_nothing_however_calm_the_run():
    loss = curve(noise=0.004)
    loss[1200] += 0.08
    assert watch(loss) == []
    loss[1200] += 0.08
    assert first(watch(loss), "loss_spike").onset_step == 1200


@pytest.mark.parametrize("scale", [1.0, 500.0])
@pytest.mark.parametrize("word", [np.nan, np.inf])
def test_a_loss_that_climbs_until_it_is_no_number_has_diverged(word, scale):
    loss = curve()[:400]
    loss[390:395] += [0.3, 0.7, 1.5, 4.0, 9.0]
    loss[395:] = word
    finding = first(watch(loss, scale=scale), "loss_divergence")
    assert (finding.onset_step, finding.detected_step, finding.severity) == (391, 395, Severity.CRITICAL)


@pytest.mark.parametrize("before", [[0.0, 0.0, 0.0], [1.5, 0.4, 0.0]])
def test_a_loss_that_is_no_number_without_a_climb_has_not(before):
    loss = curve()[:400]
    loss[392:395] += before
    loss[395] = np.nan
    assert "loss_divergence" not in kinds(watch(loss))


@pytest.mark.parametrize("seed", range(3))
def test_a_loss_that_is_learned_out_slows_down_first_and_is_no_plateau(seed):
    """A task that is found out at once (a phase of BERT's, a grokked one) and then has little left: the fall ends softly."""
    steps = np.arange(6000)
    loss = np.log(1.4 + 3.2 / (1 + np.exp((steps - 900) / 300))) + 0.05 * np.random.default_rng(seed).standard_normal(6000)
    assert not [finding for finding in watch(loss, detectors=[LossPlateau]) if finding.kind == "loss_plateau"]


def test_a_second_life_that_does_not_learn_what_the_first_did_is_a_plateau():
    fresh = np.log(2.0 + 9.0 * (1.0 + np.arange(900) / 20.0) ** -0.5)
    rng = np.random.default_rng(5)
    stuck = np.maximum(fresh, fresh[2])
    loss = np.concatenate([fresh, stuck]) + 0.01 * rng.standard_normal(1800)
    steps = [*range(900), *range(900)]
    finding = first(watch(loss, steps=steps), "loss_plateau")
    assert finding.onset_step == 0 and finding.detected_step < 250
    assert finding.evidence["expected_fall"] > 0.3
    learns = np.concatenate([fresh, fresh]) + 0.01 * rng.standard_normal(1800)
    assert kinds(watch(learns, steps=steps)) == set()


@pytest.mark.parametrize("back_to", [100, 400, 900])
def test_a_run_that_rewinds_is_judged_by_what_its_loss_was_there(back_to):
    """From step 1000 back to a checkpoint: the loss stands higher than at step 999, as it did the first time; a spike there is one."""
    loss, steps = curve(noise=0.01), [*range(1000), *range(back_to, 1200)]
    again = [*loss[:1000], *loss[back_to:1200]]
    assert watch(again, steps=steps, detectors=[LossSpike]) == []
    again[1000 + 20] += 0.5
    (said, over) = watch(again, steps=steps, detectors=[LossSpike])
    assert (said.onset_step, over.evidence["shape"]) == (back_to + 20, "isolated")


def test_a_rewind_to_before_a_spike_ends_it():
    loss, steps = curve(noise=0.01), [*range(1000), *range(800, 1100)]
    first_try = np.concatenate([loss[:950], loss[950:1000] + 1.0])
    said = watch(np.concatenate([first_try, loss[800:1100]]), steps=steps, detectors=[LossSpike])
    assert said[0].onset_step == 950
    assert (said[-1].end_step, said[-1].evidence["shape"]) == (999, "rewound")
