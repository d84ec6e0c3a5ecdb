"""The evidence plot: a real PNG of the promised size for whatever an incident may bring."""

from __future__ import annotations

import csv
import math
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from holter_monitor.plots import Series, evidence_png

PLAYBOOK = Path(__file__).parents[1] / "data" / "playbook"
DROP = {
    "kind": "throughput_drop",
    "severity": "critical",
    "summary": "Throughput −41 %: 149 of 3,222 steps below half of the run's base since step 291; all nodes at once",
    "onset_step": 291,
    "detected_step": 292,
    "end_step": None,
}


def weka() -> Series:
    with (PLAYBOOK / "throughput_weka_first_700.csv").open() as file:
        rows = list(csv.DictReader(file))
    values = [float(row["tokens_per_second"]) for row in rows]
    return Series(
        metric="tokens_per_second",
        steps=[int(row["step"]) for row in rows],
        values=values,
        low=[0.97 * v for v in values],
        high=[1.03 * v for v in values],
    )


def size(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


def pixels(png: bytes) -> np.ndarray:
    from io import BytesIO

    from matplotlib.image import imread

    return imread(BytesIO(png))


def has_color(png: bytes, rgb: tuple[int, int, int]) -> bool:
    near = np.abs(pixels(png)[..., :3] * 255 - np.array(rgb)).max(axis=-1) < 12
    return bool(near.any())


def test_a_real_throughput_drop_is_drawn_with_its_onset_in_the_severity_s_colour() -> None:
    png = evidence_png([weka()], DROP)
    assert size(png) == (1088, 680)
    assert has_color(png, (0xC8, 0x32, 0x2B))
    assert has_color(png, (0x25, 0x63, 0xC9))
    assert not has_color(evidence_png([weka()], {**DROP, "severity": "warning"}), (0xC8, 0x32, 0x2B))


def test_a_nan_that_was_logged_is_marked_and_a_gap_is_not() -> None:
    steps = list(range(100))
    values: list[float | None] = [2.0 - step / 100 for step in steps]
    values[40] = None
    calm = {**DROP, "severity": "info"}
    assert not has_color(evidence_png([Series(metric="loss", steps=steps, values=values)], calm), (0xC8, 0x32, 0x2B))
    values[60] = math.nan
    assert has_color(evidence_png([Series(metric="loss", steps=steps, values=values)], calm), (0xC8, 0x32, 0x2B))


@pytest.mark.parametrize(
    "series",
    [
        [],
        [Series(metric="loss", steps=[], values=[])],
        [Series(metric="loss", steps=[5], values=[1.0])],
        [Series(metric="loss", steps=[1, 2], values=[math.nan, math.inf])],
        [Series(metric="loss", steps=[1, 2], values=[None, None])],
        [Series(metric="a$_{b}$ <script>", steps=[1, 2, 3], values=[1e-30, 1e30, 0.0])],
        [Series(metric=name, steps=[1, 2], values=[1.0, 2.0]) for name in "abcdef"],
    ],
    ids=["none", "empty", "one point", "not finite", "not logged", "strange name", "too many"],
)
def test_whatever_comes_is_a_picture(series: list[Series]) -> None:
    width, height = size(evidence_png(series, {"kind": "loss_spike", "summary": "$x_1 " * 80}))
    assert width == 1088 and 600 < height < 1400


def test_threads_may_draw_at_once() -> None:
    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(lambda _: evidence_png([weka()], DROP), range(4)))
    assert len(set(pictures)) == 1
