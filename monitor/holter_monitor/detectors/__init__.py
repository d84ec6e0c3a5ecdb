"""Every detector that runs on every run: a class a file, a line here. How to add one: docs/adding-a-detector.md."""

from holter_monitor.detector import DetectorMaker
from holter_monitor.detectors.loss_spike import LossSpike
from holter_monitor.detectors.non_finite import NonFinite

DETECTORS: tuple[DetectorMaker, ...] = (
    LossSpike,
    NonFinite,
)
