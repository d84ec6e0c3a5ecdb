"""Megatron-LM by stand-ins for `megatron.training.training`, with the signatures of its head and of an older release."""

from types import SimpleNamespace

import pytest


def module(training_log):
    """Looks its functions up by name at each call, as the module's own loop does."""
    found = SimpleNamespace(training_log=training_log, save_checkpoint_and_time=lambda iteration, model, optimizer: None)

    def train(log):
        for iteration in range(1, 6):
            log(found, iteration)
        found.save_checkpoint_and_time(5, None, None)

    found.train = train
    return found


def head(
    loss_dict,
    total_loss_dict,
    learning_rate,
    iteration,
    loss_scale,
    report_memory_flag,
    skipped_iter,
    grad_norm,
    params_norm,
    num_zeros_in_grad,
    max_attention_logit,
    pg_collection=None,
    is_first_iteration=False,
):
    return False


def older(
    loss_dict,
    total_loss_dict,
    learning_rate,
    decoupled_learning_rate,
    iteration,
    loss_scale,
    report_memory_flag,
    skipped_iter,
    grad_norm,
    params_norm,
    num_zeros_in_grad,
):
    return False


def log_head(training, step):
    assert training.training_log({"lm loss": 10.0 / step, "mtp_1 loss": 2.0}, {}, 0.1, step, 1.0, True, 0, 0.5, None, None, 30.0) is False


def log_older(training, step):
    assert training.training_log({"lm loss": 10.0 / step, "mtp_1 loss": 2.0}, {}, 0.1, 0.2, step, 1.0, True, 0, 0.5, None, None) is False


@pytest.mark.parametrize(("signature", "log"), [(head, log_head), (older, log_older)])
def test_every_iteration_is_heard_whatever_the_order_of_its_arguments(collector, signature, log):
    from holter.integrations.megatron import watch

    training = module(signature)
    watch(training, project="p", name="n")
    training.train(log)
    collector.wait_for_event("rank_finished")
    collector.wait_for(lambda seen: len(seen.points("loss")) == 5)
    assert collector.points("loss") == [(step, 10.0 / step) for step in range(1, 6)]
    assert collector.points("mtp_1_loss")[0] == (1, 2.0)
    for metric, value in (("lr", 0.1), ("grad_norm", 0.5), ("skipped", 0.0)):
        assert collector.points(metric) == [(step, value) for step in range(1, 6)], metric
    assert not collector.points("params_norm")
    assert collector.wait_for_event("checkpoint")["step"] == 5


def test_a_call_that_is_not_understood_disturbs_nothing(collector):
    from holter.integrations.megatron import watch

    training = module(lambda *args, **kwargs: "as ever")
    watch(training, project="p", name="n")
    assert training.training_log("what", is_this=1) == "as ever"
