"""A plain loop of real jax, where it is installed (`test_releases.py` does): its arrays are values, and nobody waits for them."""

import holter
import numpy as np
import pytest

jax = pytest.importorskip("jax")
jnp = jax.numpy


@jax.jit
def train_step(weights, batch):
    """Some hundred milliseconds of work, dispatched in one."""

    def loss_of(weights):
        hidden = batch
        for _ in range(12):
            hidden = jnp.tanh(hidden @ weights)
        return (hidden**2).mean()

    loss, gradient = jax.value_and_grad(loss_of)(weights)
    return weights - 0.1 * gradient, loss, jnp.sqrt((gradient**2).sum())


def test_a_step_does_not_wait_for_what_is_still_computed(collector):
    """Tried several times: a machine that stands still between the dispatch and the question has computed it meanwhile."""
    weights, batch = jnp.eye(600), jnp.ones((600, 600))
    train_step(weights, batch)[1].block_until_ready()
    run = holter.init("p", "n")
    went_on, losses = [], []
    for step in range(1, 9):
        weights, loss, norm = train_step(weights, batch)
        was_late = not loss.is_ready()
        run.step(step, loss=loss, grad_norm=norm, lr=0.1)
        went_on.append(was_late and not loss.is_ready())
        losses.append(float(loss))
    run.finish()
    assert any(went_on)
    collector.wait_for_event("rank_finished")
    collector.wait_for(lambda seen: len(seen.points("loss")) == 8)
    assert collector.points("loss") == [(step, pytest.approx(loss)) for step, loss in enumerate(losses, 1)]
    assert [step for step, _ in collector.points("grad_norm")] == list(range(1, 9))


def test_what_is_no_scalar_or_was_given_away_is_left_out(collector):
    run = holter.init("p", "n")
    given = jax.jit(lambda value: value + 1, donate_argnums=0)
    away = jnp.float32(1.0) + 0
    given(away)
    run.step(1, loss=jnp.bfloat16(2.5), lr=jnp.int32(3), away=away, grads=jnp.ones(8))
    jax.jit(lambda value: run.step(2, traced=value) or value)(1.0)
    run.step(3, loss=jnp.nan)
    run.finish()
    collector.wait_for_event("rank_finished")
    collector.wait_for(lambda seen: len(seen.points("loss")) == 2)
    assert collector.points("loss")[0] == (1, 2.5) and collector.points("lr") == [(1, 3.0)]
    assert not collector.points("grads") and not collector.points("traced")


def test_batches_are_named_by_the_host_s_arrays_and_never_by_those_of_a_device(collector):
    run = holter.init("p", "n")
    for kind, steps in ((np.full, (1, 2, 3)), (jnp.full, (4, 5, 6))):
        for step, _ in zip(steps, run.batches([kind((4, 8), number) for number in (1, 2, 1)]), strict=False):
            run.step(step, loss=1.0)
    run.finish()
    collector.wait_for_event("rank_finished")
    collector.wait_for(lambda seen: len(seen.points("loss")) == 6)
    assert len(collector.points("data_wait_seconds")) == 6
    hashes = dict(collector.points("batch_hash"))
    assert list(hashes) == [1, 2, 3] and hashes[1] == hashes[3] != hashes[2]
