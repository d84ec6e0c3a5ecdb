"""Accelerate's tracker: `Accelerator(log_with=HolterTracker("smol"))`, then `accelerator.log({...}, step=step)` as ever."""

from __future__ import annotations

from typing import Any

from accelerate.tracking import GeneralTracker

import holter


class HolterTracker(GeneralTracker):
    """Records what the script logs. `accelerator.log` reaches it on the main process alone, because Accelerate sets trackers up nowhere else; on the
    other ranks `run` begins with its first use, and `tracker.log(...)` or `tracker.run` records."""

    name = "holter"
    requires_logging_directory = False
    main_process_only = False

    def __init__(self, run_name: str | None = None, **settings: Any) -> None:
        super().__init__(_blank=True)
        self._settings = {"name": run_name, **settings}
        self._run: holter.Run | None = None

    @property
    def tracker(self) -> holter.Run:
        return self.run

    @property
    def run(self) -> holter.Run:
        """This rank's run, begun when it is first asked for."""
        if self._run is None:
            self._run = holter.init(**self._settings)
        return self._run

    def start(self) -> None:
        """Called by `init_trackers`, whose `project_name` comes too late to be seen here: name the project in the constructor. Older releases do
        not call it; the run then begins with the first thing it is told."""
        _ = self.run

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.run.event("config", **values)

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        self.run.step(step, **{key.replace("/", "."): value for key, value in values.items()})

    def finish(self) -> None:
        if self._run is not None:
            self._run.finish()
