"""Megatron-LM by stand-ins for `megatron.training.training`, with the signatures of its head and of an older release."""

import itertools
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


class Reader:
    """Megatron's `RerunDataIterator`."""

    def __init__(self, iterable):
        self.iterable = iterable

    def __next__(self):
        return next(self.iterable)


class Whole:
    """The names of `megatron.training.training` that its `train` looks up, in the order of its loop, and what they have done."""

    def __init__(self, train_iters):
        self.args = SimpleNamespace(micro_batch_size=2, seq_length=8, consumed_train_samples=0, save="folder", train_iters=train_iters)
        self.saved = []
        self.training_log = head
        self.save_checkpoint_and_time = self._save
        self.checkpoint_and_decide_exit = self._decide
        self.train_step = self._step
        self.train = self._train

    def get_args(self):
        return self.args

    def get_num_microbatches(self):
        return 3

    def _save(self, iteration, model, optimizer, scheduler, flops, context, non_persistent_ckpt=False, train_data_iterator=None):
        self.saved.append((iteration, model, train_data_iterator is not None))

    def _decide(
        self,
        model,
        optimizer,
        opt_param_scheduler,
        iteration,
        num_floating_point_operations_so_far,
        checkpointing_context,
        train_data_iterator,
    ):
        if iteration == 2:
            self.save_checkpoint_and_time(iteration, model, optimizer, opt_param_scheduler, 0, {})
        return False

    def _step(self, forward_step_func, data_iterator, model, optimizer, opt_param_scheduler, config, forward_backward_func, iteration=None):
        for reader in filter(None, data_iterator if isinstance(data_iterator, list) else [data_iterator]):
            for _ in range(3):
                next(reader)

    def _train(self, data_iterator):
        iteration, should_exit = 0, False
        while iteration < self.args.train_iters and not should_exit:
            self.train_step(None, data_iterator, ["model"], None, None, None, None, iteration=iteration)
            iteration += 1
            self.args.consumed_train_samples += 6
            self.training_log({"lm loss": 1.0}, {}, 0.1, iteration, 1.0, True, 0, 0.5, None, None, 0.0)
            should_exit = self.checkpoint_and_decide_exit(["model"], "optimizer", "scheduler", iteration, 1e9, {}, data_iterator)
        if should_exit:
            raise SystemExit(0)
        return iteration


@pytest.mark.parametrize("of", [lambda reader: reader, lambda reader: [reader, None]], ids=["one", "virtual stages"])
def test_tokens_the_place_in_the_data_and_the_wait_for_it(collector, of):
    from holter.integrations.megatron import watch

    training = Whole(4)
    watch(training, project="p", name="n")
    training.train(of(Reader(iter(range(100)))))
    collector.wait_for_event("rank_finished")
    collector.wait_for(lambda seen: len(seen.points("loss")) == 4)
    assert collector.points("tokens") == [(step, 48.0) for step in range(1, 5)]
    assert collector.points("consumed_samples") == [(step, 6.0 * step) for step in range(1, 5)]
    assert [step for step, _ in collector.points("data_wait_seconds")] == [1, 2, 3, 4]
    assert len({code for _, code in collector.points("batch_hash")}) == 4


def test_a_rank_that_reads_no_data_has_its_steps(collector):
    from holter.integrations.megatron import watch

    training = Whole(3)
    watch(training, project="p", name="n")
    training.train(None)
    collector.wait_for_event("rank_finished")
    collector.wait_for(lambda seen: len(seen.points("loss")) == 3)
    assert not collector.points("data_wait_seconds")


def test_advice_is_a_checkpoint_and_an_exit_of_megatron_s_own(collector):
    from holter.integrations.megatron import watch

    collector.advice = {"stop": True, "checkpoint": True}
    training = Whole(10**9)
    watch(training, project="p", name="n", obey_every=5)
    with pytest.raises(SystemExit) as ended:
        training.train(Reader(itertools.count()))
    assert ended.value.code == 0
    saved, model, has_data = training.saved[-1]
    collector.wait_for_event("rank_finished")
    assert (model, has_data) == (["model"], True)
    assert collector.points("loss")[-1][0] == saved
    assert [event["step"] for event in collector.events if event["event"] == "checkpoint"] == sorted({2, saved})


def test_a_call_that_is_not_understood_disturbs_nothing(collector):
    from holter.integrations.megatron import watch

    training = module(lambda *args, **kwargs: "as ever")
    watch(training, project="p", name="n")
    assert training.training_log("what", is_this=1) == "as ever"
