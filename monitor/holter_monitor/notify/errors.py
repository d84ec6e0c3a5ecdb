"""What can go wrong with a delivery, as a tree.

DeliveryError
├── DeliveryFailed    not this time: try again, after `retry_after` seconds if the receiver said so
└── DeliveryRefused   never: the receiver does not take it, however often it is asked
"""

from __future__ import annotations


class DeliveryError(Exception):
    """The root of what a notifier may raise."""


class DeliveryFailed(DeliveryError):
    """Not this time. `retry_after`: the seconds that the receiver asked for, None where it named none."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class DeliveryRefused(DeliveryError):
    """Never: wrong key, deleted channel, malformed message, forbidden address."""
