"""Holter: a health monitor for training runs. This is the light SDK that rides inside the training process."""

__version__ = "0.1.0"
