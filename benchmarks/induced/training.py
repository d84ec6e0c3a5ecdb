"""A two-rank training in numpy, synchronous through a socket, to which benchmarks/induced_causes.py does things.

RANK=0|1 python training.py PORT FAULT PAUSE STEPS DATA
"""

import os
import socket
import sys
import time

import holter
import numpy as np

rank, port, fault, pause, steps, data = (
    int(os.environ["RANK"]),
    int(sys.argv[1]),
    sys.argv[2],
    float(sys.argv[3]),
    int(sys.argv[4]),
    sys.argv[5],
)
RESUMED = 140
"""The step that a second attempt begins with."""
BATCH, IN, HIDDEN, OUT = 64, 32, 48, 8
STALLS = set(np.random.default_rng(5).choice(np.arange(150, steps), 14, replace=False).tolist()) if fault == "stalls" else set()


def meet() -> socket.socket:
    if rank == 0:
        return socket.create_server(("127.0.0.1", port)).accept()[0]
    for _ in range(100):
        try:
            return socket.create_connection(("127.0.0.1", port))
        except OSError:
            time.sleep(0.1)
    raise ConnectionError("rank 0 never came")


peer = meet()
peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def reduce(values: np.ndarray) -> np.ndarray:
    """All-reduce of two ranks: the mean of both."""
    body, got = values.astype(np.float64).tobytes(), b""
    peer.sendall(body)
    while len(got) < len(body):
        more = peer.recv(len(body) - len(got))
        if not more:
            raise ConnectionError("the peer is gone")
        got += more
    return (values + np.frombuffer(got, np.float64).reshape(values.shape)) / 2


def read(step: int) -> None:
    """The batch's bytes from the mounted file, cold: the page cache is told to forget them."""
    handle = os.open(data, os.O_RDONLY)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.pread(handle, 4096, step * 131072 % 6_000_000)
    os.close(handle)


def loader(start: int):
    dice, truth = np.random.default_rng(rank), np.random.default_rng(99).normal(size=(IN, OUT))
    for step in range(steps):
        x = dice.normal(size=(BATCH, IN))
        y = (x @ truth).argmax(1)
        if step < start:
            continue
        if fault == "garbage_batch" and 600 <= step < 602:
            x, y = dice.normal(size=(BATCH, IN)) * 6, dice.integers(0, OUT, BATCH)
        if fault == "garbage_batch":
            run.event("batch", step=step, batch=f"shard-{step // 100}/{step}", documents=[step * 3, step * 3 + 1])
        if fault == "slow_loader" and step >= 1000:
            time.sleep(pause * 3)
        if fault == "slow_disk":
            read(step)
        if step in STALLS:
            time.sleep(pause * 25)
        yield x, y


def resident() -> float:
    with open("/proc/self/statm") as file:
        return float(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def save(step: int) -> None:
    if fault == "checkpoint_expired" and step % 100 == 0 and 0 < step <= 500:
        run.checkpoint(f"/ckpt/{step}", step)
    if fault == "full_disk" and step % 100 == 0 and step > 0 and rank == 0:
        path = f"{os.path.dirname(data)}/step-{step}.ckpt"
        with open(path, "wb") as file:
            file.write(os.urandom(1_500_000))
        run.checkpoint(path, step)


run = holter.init(project="induced", name=fault, config={"checkpoint_interval": 100} if fault == "checkpoint_expired" else {})
# A training loads its model between `init` and its first step; on two cores the node agent's own start would otherwise be seen as a slow beginning.
time.sleep(4.0)
start = 0
w1 = np.random.default_rng(1).normal(size=(IN, HIDDEN)) * 0.15
w2 = np.random.default_rng(2).normal(size=(HIDDEN, OUT)) * 0.15
kept, lr, saved = [], 0.15, f"{os.environ['HOLTER_DIR']}.npz"
if fault == "stalls" and os.path.exists(saved):  # the second attempt goes on from the checkpoint of the first
    w1, w2 = (np.load(saved)[name] for name in ("w1", "w2"))
    start = RESUMED
for step, (x, y) in enumerate(run.batches(loader(start)), start):
    with run.section("forward_backward"):
        if fault == "crash" and step == 600 and rank == 1:
            raise RuntimeError("shape '[2, 3]' is invalid for input of size 5")
        ends = time.process_time() + pause * 0.5
        h = np.maximum(x @ w1, 0)
        logits = h @ w2
        logits -= logits.max(1, keepdims=True)
        p = np.exp(logits)
        p /= p.sum(1, keepdims=True)
        loss = float(-np.log(p[np.arange(BATCH), y] + 1e-12).mean())
        p[np.arange(BATCH), y] -= 1
        p /= BATCH
        back = p @ w2.T
        back[h <= 0] = 0
        g1, g2 = x.T @ back, h.T @ p
        while time.process_time() < ends:
            (x @ w1).sum()
    with run.section("communication", communication=True):
        g1, g2 = reduce(g1), reduce(g2)
        loss = float(reduce(np.array([loss]))[0])
    time.sleep(pause * 0.5)
    if fault == "raised_learning_rate" and step == 600:
        lr *= 400
    if fault == "leak" and step >= 100 and rank == 1:
        kept.append(np.ones(100_000))
    w1, w2 = w1 - lr * g1, w2 - lr * g2
    more = {"process_memory_rss_bytes": resident()} if fault == "leak" else {}
    run.step(step, loss=loss, grad_norm=float(np.sqrt((g1**2).sum() + (g2**2).sum())), lr=lr, tokens=BATCH, **more)
    save(step)
    if fault == "stalls" and step == RESUMED - 1 and rank == 0 and start == 0:
        np.savez(saved, w1=w1, w2=w2)
        run.checkpoint(saved, step)
run.finish()
