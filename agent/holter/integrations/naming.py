"""Names the batches of a step, for `data_position`: a resume that repeats or skips data is seen by the same or other numbers."""

from __future__ import annotations

import logging
import time
from typing import Any

from holter import batch_hash
from holter.share import Share

_log = logging.getLogger("holter")


class BatchNames:
    """One number a step, of the batch or of several that are accumulated. What cannot be read, or costs too much of a step, is not tried again."""

    def __init__(self) -> None:
        self._share = Share()
        self._goes_on = True

    def add(self, tensor: Any, values: dict[str, Any]) -> None:
        """Never raises, and waits for no device."""
        if not self._goes_on:
            return
        began = time.monotonic_ns()
        try:
            code = batch_hash.of_tensor(tensor, values.get("batch_hash"))
            if code is not None:
                values["batch_hash"] = code
            self._goes_on = self._share.may_go_on(began, time.monotonic_ns())
        except Exception as error:  # noqa: BLE001  never raise into a training loop
            _log.debug("the batches are not named: %s", error)
            self._goes_on = False
