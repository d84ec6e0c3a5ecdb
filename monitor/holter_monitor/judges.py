"""Where the detection consumer's engines come from."""

from __future__ import annotations

import logging

from holter_monitor.detection import Judge
from holter_monitor.engine import Engine
from holter_monitor.runs import Run
from holter_monitor.snapshot import SnapshotError
from holter_monitor.steps import RunFacts

logger = logging.getLogger(__name__)


class Engines:
    """The engines of `holter_monitor.engine`, all detectors in them."""

    def new(self, run: Run) -> Judge:
        return Engine(RunFacts(run=run.id, project=run.project, name=run.name, world_size=run.world_size, config=run.config))

    def restore(self, run: Run, state: bytes) -> Judge:
        try:
            return Engine.restore(state)
        except SnapshotError as error:
            # An upgrade may read no old state. The records before it are trimmed: the engine learns anew, its incidents stay as they are.
            logger.warning("the engine of run %s starts cold: %s", run.id, error)
            return self.new(run)
