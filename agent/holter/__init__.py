"""Holter: a health monitor for training runs. This is the light SDK that rides inside the training process."""

from holter.advice import Advice
from holter.errors import HolterError, SettingsError
from holter.run import Run
from holter.start import init

__version__ = "0.1.0"
__all__ = ["Advice", "HolterError", "Run", "SettingsError", "__version__", "init"]
