"""Holter: a health monitor for training runs. This is the light SDK that rides inside the training process."""

from typing import Any

from holter.advice import Advice
from holter.errors import HolterError, SettingsError
from holter.run import Run
from holter.start import init

__version__ = "0.1.0"
__all__ = ["Advice", "HolterError", "Run", "SettingsError", "__version__", "init", "preflight"]


def preflight(model: object, mesh: object = None, **options: Any) -> Any:
    """Compare the model's tensors over all ranks once, before the first step; every rank calls it. See `holter.parallel.preflight`."""
    from holter.parallel import preflight as compare

    return compare(model, mesh, **options)
