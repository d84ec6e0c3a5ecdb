"""nanotron's calls by a stand-in with the signatures of release 0.4: `DistributedTrainer.training_step`, `save_checkpoint`, `post_training`."""

from types import SimpleNamespace


def group(rank, size):
    return SimpleNamespace(rank=lambda: rank, size=lambda: size)


class Trainer:
    def __init__(self, *, has_loss=True):
        self.parallel_context = SimpleNamespace(dp_pg=group(0, 1), tp_pg=group(0, 1), pp_pg=group(0, 1))
        self.lr_scheduler = SimpleNamespace(get_last_lr=lambda: [0.1])
        self.micro_batch_size, self.n_micro_batches_per_batch, self.sequence_length = 2, 3, 8
        self.grad_norm_unclipped = 0.5
        self._has_loss = has_loss
        self.batches = []

    def train(self, dataloader):
        for self.iteration_step in range(1, 5):
            self.training_step(dataloader=dataloader)
        self.save_checkpoint()
        self.post_training()

    def training_step(self, dataloader):
        self.batches += [next(dataloader) for _ in range(self.n_micro_batches_per_batch)]
        return [], (4.0 / self.iteration_step if self._has_loss else None)

    def save_checkpoint(self):
        return "checkpoints/4"

    def post_training(self):
        pass


def test_every_step_of_every_rank(collector):
    from holter.integrations.nanotron import watch

    trainer = Trainer()
    watch(trainer, project="p", name="n")
    trainer.train(iter(range(12)))
    collector.wait_for_event("rank_finished")
    collector.wait_for(lambda seen: len(seen.points("loss")) == 4)
    assert trainer.batches == list(range(12))
    assert collector.points("loss") == [(step, 4.0 / step) for step in range(1, 5)]
    for metric, value in (("lr", 0.1), ("grad_norm", 0.5), ("tokens", 48.0)):
        assert collector.points(metric) == [(step, value) for step in range(1, 5)], metric
    assert len(collector.points("data_wait_seconds")) == 4
    saved = collector.wait_for_event("checkpoint")
    assert (saved["step"], saved["attrs"]["path"]) == (4, "checkpoints/4")


def test_a_stage_without_the_loss_still_has_its_steps(collector):
    from holter.integrations.nanotron import watch

    trainer = Trainer(has_loss=False)
    watch(trainer, project="p", name="n")
    trainer.train(iter(range(12)))
    collector.wait_for_event("rank_finished")
    collector.wait_for(lambda seen: len(seen.points("grad_norm")) == 4)
    assert not collector.points("loss")
