"""Updates of the optimiser that leave what the learning rate explains."""

import numpy as np
from detector_streams import feed
from holter_monitor.detectors.update_norm import UpdateNorm
from holter_monitor.findings import Severity
from holter_monitor.stream.steps import Step


def schedule(count=1200):
    steps = np.arange(count)
    return 3e-4 * np.minimum(steps / 100 + 0.01, 0.5 * (1 + np.cos(np.pi * steps / (count + 60))))


def run(updates, lr):
    for number, rate in enumerate(lr):
        yield Step.of(number, {"lr": float(rate)} | {name: float(values[number]) for name, values in updates.items()})


def healthy(lr, seed=0):
    return lr * 3.0 * np.exp(0.3 * np.random.default_rng(seed).standard_normal(len(lr)))


def test_a_schedule_from_warmup_to_a_thousandth_is_silence():
    lr = schedule()
    assert lr.max() / lr[-1] > 100
    assert not feed(UpdateNorm(), run({"update_norm": healthy(lr), "update_ratio.layers.0": healthy(lr, 1)}, lr))


def test_an_update_that_explodes_is_found_and_ends():
    lr = schedule()
    updates = healthy(lr)
    updates[600:700] *= 40
    said = feed(UpdateNorm(), run({"update_norm": updates}, lr))
    assert [(f.kind, f.onset_step, f.detected_step, f.is_over) for f in said] == [
        ("grad_explosion", 600, 607, False),
        ("grad_explosion", 600, 749, True),
    ]
    assert said[0].severity == Severity.WARNING


def test_a_layer_that_dies_is_named_and_no_other():
    lr = schedule()
    updates = {f"update_ratio.layers.{layer}": healthy(lr, layer) for layer in range(4)}
    updates["update_ratio.layers.2"][500:] = 0.0
    (found,) = feed(UpdateNorm(), run(updates, lr))
    assert (found.kind, found.scope, found.onset_step) == ("grad_vanishing", "update_ratio.layers.2", 500)
    assert found.evidence["is_dead"] and "nothing is learned there" in found.summary


def test_single_large_updates_are_no_explosion():
    lr = schedule()
    updates = healthy(lr)
    updates[np.random.default_rng(4).choice(1200, 30, replace=False)] *= 50
    assert not feed(UpdateNorm(), run({"update_norm": updates}, lr))
