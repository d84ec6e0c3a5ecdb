"""The policy folder, watched: an edit takes effect within seconds, a mistake leaves the old policy in force and says where it is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from holter_monitor.alerting.policies import Policy
from holter_monitor.alerting.policy_files import load
from holter_monitor.notify.receivers import notifier

logger = logging.getLogger(__name__)


class PolicyWatch:
    """Calls `use(policy)` whenever the files say something else. `problem` is what is wrong with them now, None if nothing is."""

    def __init__(self, folder: Path, environ: Mapping[str, str], use: Callable[[Policy], None], every: float = 2.0) -> None:
        self.folder, self.environ, self.use, self.every = folder, environ, use, every
        self.problem: str | None = None
        self._seen = self._stamp()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="holter-policies", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def look(self) -> bool:
        """Whether a new policy was taken up."""
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            self.use(load(self.folder, self.environ, notifier))
        except ValueError as error:
            self.problem = str(error)
            logger.error("the policy stays as it was: %s", error)
            return False
        self.problem = None
        logger.warning("the policy of %s is in force since %s", self.folder, time.strftime("%H:%M:%S"))
        return True

    def _watch(self) -> None:
        while not self._stop.wait(self.every):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - a folder that vanishes for a moment must not end the watch
                self.problem = f"{type(error).__name__}: {error}"

    def _stamp(self) -> list[tuple[str, int, int]]:
        paths = [self.folder] if self.folder.is_file() else sorted([*self.folder.glob("*.yml"), *self.folder.glob("*.yaml")])
        found = []
        for path in paths:
            try:
                state = path.stat()
            except OSError:
                continue
            found.append((path.name, state.st_mtime_ns, state.st_size))
        return found
