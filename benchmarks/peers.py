"""What the overhead benchmarks compare: one way each tool documents for logging a dict of scalars at a step, with nothing sent anywhere.

Install peers with: pip install wandb trackio mlflow-skinny tensorboard prometheus_client opentelemetry-sdk structlog loguru
A peer that is not installed is left out and named.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Log = Callable[[int, dict[str, float]], None]


@contextmanager
def nothing(folder: Path) -> Iterator[Log]:
    """An empty function of the same signature: the floor of the measurement itself."""
    del folder

    def step(step: int | None = None, /, *_extra: object, **values: float) -> None:
        del step, values

    yield lambda number, values: step(number, **values)


@contextmanager
def holter_run(folder: Path) -> Iterator[Log]:
    """The whole SDK with its node agent running and a collector that does not answer (the port of nobody)."""
    import holter

    del folder
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as rings:
        run = holter.init(project="bench", name="bench", url="http://127.0.0.1:9", directory=rings)
        step = run.step
        yield lambda number, values: step(number, **values)
        run.finish()


@contextmanager
def holter_batches(folder: Path) -> Iterator[Log]:
    """The same with `run.batches` on rank 0, which names each batch: three tensors of 8 x 2,048."""
    import holter
    import torch

    del folder
    batch = {name: torch.randint(0, 50_000, (8, 2_048)) for name in ("input_ids", "labels", "attention_mask")}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as rings:
        run = holter.init(project="bench", name="batches", url="http://127.0.0.1:9", directory=rings)
        batches = run.batches(itertools.repeat(batch))

        def log(number: int, values: dict[str, float]) -> None:
            next(batches)
            run.step(number, **values)

        yield log
        run.finish()


@contextmanager
def holter_in_python(folder: Path) -> Iterator[Log]:
    """The same ring where `_hot.c` was not built."""
    import time

    from holter.recorder import Recorder
    from holter.ring import Ring
    from holter.row_writer import RowWriter

    del folder
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as rings:
        recorder = Recorder(Ring.create(Path(rings), "bench", {}, (1, 1), time.monotonic_ns()), 0, writer=RowWriter)
        step = recorder.step
        yield lambda number, values: step(number, **values)
        recorder.silence()


@contextmanager
def prometheus(folder: Path) -> Iterator[Log]:
    import prometheus_client as client

    del folder
    registry = client.CollectorRegistry()
    gauges: dict[str, client.Gauge] = {}

    def log(_step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            gauge = gauges.get(name)
            if gauge is None:
                gauge = gauges[name] = client.Gauge(name, name, registry=registry)
            gauge.set(value)

    yield log


@contextmanager
def json_logging(folder: Path) -> Iterator[Log]:
    import json

    logger = logging.getLogger("bench")
    logger.propagate = False
    handler = logging.FileHandler(folder / "log.jsonl")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lambda step, values: logger.info(json.dumps({"step": step, **values}))
    logger.removeHandler(handler)
    handler.close()


@contextmanager
def structlog_json(folder: Path) -> Iterator[Log]:
    import structlog

    with (folder / "struct.jsonl").open("w") as file:
        logger = structlog.wrap_logger(
            structlog.PrintLogger(file), processors=[structlog.processors.TimeStamper(), structlog.processors.JSONRenderer()]
        )
        yield lambda step, values: logger.info("step", step=step, **values)


@contextmanager
def loguru_json(folder: Path) -> Iterator[Log]:
    from loguru import logger

    logger.remove()
    number = logger.add(folder / "loguru.jsonl", serialize=True)
    yield lambda step, values: logger.bind(step=step, **values).info("step")
    logger.remove(number)


@contextmanager
def opentelemetry(folder: Path) -> Iterator[Log]:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    del folder
    provider = MeterProvider(metric_readers=[InMemoryMetricReader()])
    meter = provider.get_meter("bench")
    gauges: dict[str, object] = {}

    def log(_step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            gauge = gauges.get(name)
            if gauge is None:
                gauge = gauges[name] = meter.create_gauge(name)
            gauge.set(value)  # type: ignore[attr-defined]

    yield log
    provider.shutdown()


@contextmanager
def tensorboard(folder: Path) -> Iterator[Log]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))

    def log(step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    yield log
    writer.close()


@contextmanager
def wandb_offline(folder: Path) -> Iterator[Log]:
    os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true", WANDB_DIR=str(folder), WANDB_CONSOLE="off")
    import wandb

    run = wandb.init(project="bench", mode="offline", dir=str(folder))
    yield lambda step, values: run.log(values, step=step)
    with contextlib.redirect_stdout(io.StringIO()):
        run.finish()


@contextmanager
def mlflow_async(folder: Path) -> Iterator[Log]:
    import mlflow

    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    mlflow.set_tracking_uri(f"file:{folder}")
    mlflow.set_experiment("bench")
    with mlflow.start_run():
        yield lambda step, values: mlflow.log_metrics(values, step=step, synchronous=False) and None


@contextmanager
def trackio(folder: Path) -> Iterator[Log]:
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio as tool

    with contextlib.redirect_stdout(io.StringIO()):
        tool.init(project="bench", embed=False)
    yield lambda step, values: tool.log(values, step=step)
    with contextlib.redirect_stdout(io.StringIO()):
        tool.finish()


PEERS = {
    "(empty function)": nothing,
    "holter": holter_run,
    "holter + run.batches": holter_batches,
    "holter, no compiler": holter_in_python,
    "prometheus_client": prometheus,
    "logging + json": json_logging,
    "structlog + json": structlog_json,
    "loguru + json": loguru_json,
    "opentelemetry": opentelemetry,
    "trackio": trackio,
    "wandb offline": wandb_offline,
    "mlflow async": mlflow_async,
    "tensorboard": tensorboard,
}
