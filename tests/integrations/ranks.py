"""Two gloo ranks of one training, forked after the imports: `ranks.py FRAMEWORK FOLDER URL URL`. Each rank has a collector of its own, so that the
test decides which of them hears advice; each leaves the step it ended at in `FOLDER/end-RANK`."""

import importlib
import os
import socket
import sys
import traceback
from pathlib import Path

EVERY = 5
MAX_STEPS = 1_000_000


def plain(folder, rank):
    import holter
    import torch

    torch.distributed.init_process_group("gloo")
    run = holter.init("p", "n")
    is_told = False
    for step in range(1, MAX_STEPS):
        gradient = torch.ones(4)
        torch.distributed.all_reduce(gradient)
        run.step(step, loss=1.0)
        if run.advice.checkpoint and not is_told:
            run.event("heard")
            is_told = True
        advice = run.agreed_advice(every=EVERY)
        if advice.checkpoint:
            (folder / f"checkpoint-{rank}-{step}").touch()
            run.checkpoint(folder, step)
        if advice.stop:
            break
    run.finish()
    torch.distributed.destroy_process_group()
    return step


def accelerate(folder, rank):
    import accelerate
    import torch
    from holter.integrations.accelerate import HolterTracker

    tracker = HolterTracker("n", project="p")
    accelerator = accelerate.Accelerator(cpu=True, log_with=tracker)
    accelerator.init_trackers("p", config={"lr": 0.01})
    model = torch.nn.Linear(4, 1)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.01))
    for step in range(1, MAX_STEPS):
        loss = model(torch.ones(2, 4)).pow(2).mean()
        accelerator.backward(loss)
        optimizer.step()
        tracker.log({"loss": loss}, step=step)
        advice = tracker.run.agreed_advice(every=EVERY)
        if advice.checkpoint:
            accelerator.save_state(str(folder / f"checkpoint-{rank}-{step}"))
        if advice.stop:
            break
    accelerator.end_training()
    tracker.run.finish()
    return step


def transformers(folder, rank):
    import torch
    import transformers
    from holter.integrations.transformers import watch

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 64

        def __getitem__(self, index):
            row = torch.arange(index, index + 16) % 50
            return {"input_ids": row, "labels": row}

    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=1, n_head=2))
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=MAX_STEPS,
        per_device_train_batch_size=2,
        report_to=[],
        logging_strategy="no",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        ddp_backend="gloo",
    )
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=Rows())
    assert trainer.args.world_size == 2
    watch(trainer, project="p", name="n", obey_every=EVERY)
    trainer.train()
    return trainer.state.global_step


def lightning(folder, rank):
    import lightning
    import torch
    from holter.integrations.lightning import HolterCallback

    class Line(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def training_step(self, batch, index):
            return self.layer(batch).pow(2).mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    rows = torch.utils.data.DataLoader(torch.randn(64, 4), batch_size=2)
    trainer = lightning.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=MAX_STEPS,
        callbacks=[HolterCallback(project="p", name="n", obey_every=EVERY)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Line(), rows)
    return trainer.global_step


def main(framework, folder, *urls):
    for name in {"plain": ["torch"], "transformers": ["transformers", "accelerate"]}.get(framework, [framework]):
        importlib.import_module(name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = [_fork(framework, Path(folder), rank, urls[rank], str(port)) for rank in range(2)]
    return max(os.waitstatus_to_exitcode(os.waitpid(rank, 0)[1]) for rank in ranks)


def _fork(framework, folder, rank, url, port):
    pid = os.fork()
    if pid:
        return pid
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update(place, HOLTER_URL=url, HOLTER_DIR=str(folder / f"holter-{rank}"), HOLTER_NODE=f"node-{rank}")
    status = 1
    try:
        step = globals()[framework](folder, rank)
        (folder / f"end-{rank}").write_text(str(step))
        status = 0
    except Exception:
        traceback.print_exc()  # the test shows it
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
