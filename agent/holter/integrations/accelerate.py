"""Accelerate's tracker: `Accelerator(log_with=HolterTracker("smol"))`, then `accelerator.log({...}, step=step)` as ever."""

from __future__ import annotations

from typing import Any

from accelerate.tracking import GeneralTracker

import holter


class HolterTracker(GeneralTracker):
    """Every rank records what the script logs; Accelerate itself would log on the main process only."""

    name = "holter"
    requires_logging_directory = False
    main_process_only = False

    def __init__(self, run_name: str | None = None, **settings: Any) -> None:
        super().__init__(_blank=True)
        self._settings = {"name": run_name, **settings}
        self.run: holter.Run | None = None

    @property
    def tracker(self) -> holter.Run | None:
        return self.run

    def start(self) -> None:
        """Called by `init_trackers`, whose `project_name` comes too late to be seen here: name the project in the constructor. Older releases do
        not call it; the run then begins with the first thing it is told."""
        self._begun()

    def _begun(self) -> holter.Run:
        if self.run is None:
            self.run = holter.init(**self._settings)
        return self.run

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self._begun().event("config", **values)

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        self._begun().step(step, **{key.replace("/", "."): value for key, value in values.items()})

    def finish(self) -> None:
        if self.run is not None:
            self.run.finish()
