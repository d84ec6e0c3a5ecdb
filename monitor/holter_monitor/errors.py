"""What can go wrong in the collector, as a tree.

    MonitorError
    ├── SettingsError         a setting cannot be used
    ├── DataDirectoryInUse    another collector holds the data directory
    ├── ControlStoreInUse     another collector uses the control store
    ├── Unavailable           a store cannot take it now: keep it and come back (503)
    │   └── DiskFull          there is no room left (507)
    ├── Problem               a request cannot be served; becomes an RFC 9457 problem document
    └── ClientError           a collector answered a client's question with a problem

`Problem` is raised at the place that knows the field, the value and the remedy.
"""

from __future__ import annotations

from typing import Any


class MonitorError(Exception):
    """The root of all errors that this package raises."""


class SettingsError(MonitorError):
    """A setting cannot be used; the sentence names the setting, its value and what it may be."""


class DataDirectoryInUse(MonitorError):
    """Another collector holds the data directory; two writers would each believe that they own the log."""


class ControlStoreInUse(MonitorError):
    """Another collector uses the control store; their offsets would undo each other."""


class Unavailable(MonitorError):
    """A store cannot take it now: keep it and come back after `retry_after` seconds."""

    def __init__(self, reason: str, retry_after: float = 2.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class DiskFull(Unavailable):
    """There is no room left under the data directory; reading still works."""

    def __init__(self, reason: str, retry_after: float = 30.0) -> None:
        super().__init__(reason, retry_after)


class Problem(MonitorError):
    """A request cannot be served. `field`, `value` and `remedy` tell the caller what to change."""

    def __init__(
        self,
        status: int,
        title: str,
        *,
        field: str | None = None,
        value: Any = None,
        remedy: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(title)
        self.status, self.title, self.field, self.value, self.remedy, self.retry_after = status, title, field, value, remedy, retry_after


class ClientError(MonitorError):
    """A collector answered a client's question with a problem, or not at all (`status` 0)."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
