"""Holter: a health monitor for training runs. This is the light SDK that rides inside the training process."""

from holter.errors import HolterError, SettingsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from holter.advice import Advice
    from holter.run import Run
    from holter.start import init

__version__ = "0.1.0"
__all__ = ["Advice", "HolterError", "Run", "SettingsError", "__version__", "init", "preflight", "tee"]
_HOMES = {"Advice": "holter.advice", "Run": "holter.run", "init": "holter.start"}


def preflight(model: "object", mesh: "object" = None, **options: "Any") -> "Any":
    """Compare the model's tensors over all ranks once, before the first step; every rank calls it. See `holter.parallel.preflight`."""
    from holter.parallel import preflight as compare

    return compare(model, mesh, **options)


def tee(run: "Run", *objects: "Any") -> "Any":
    """Also record what the script logs to wandb, TensorBoard, MLflow or trackio. See `holter.integrations.tee`."""
    from holter.integrations.tee import tee as listen

    return listen(run, *objects)


def __getattr__(name: str) -> object:
    """The face is imported at its first use: a script that imports `holter` and is switched off should not wait for it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found
