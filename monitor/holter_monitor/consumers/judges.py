"""Where the detection consumer's engines come from."""

from __future__ import annotations

import logging
from typing import Protocol

from holter_monitor.consumers.detection import Judge
from holter_monitor.engine import Engine
from holter_monitor.reference import Reference
from holter_monitor.runs import Run
from holter_monitor.snapshot import SnapshotError
from holter_monitor.stream.steps import RunFacts

logger = logging.getLogger(__name__)


class ReferenceShelf(Protocol):
    """Where the run that `Run.reference` names is looked up."""

    def of(self, run: Run) -> Reference | None: ...


class Engines:
    """The engines of `holter_monitor.engine`, all detectors in them."""

    def __init__(self, references: ReferenceShelf) -> None:
        self._references = references

    def new(self, run: Run) -> Judge:
        held_against = self._references.of(run)
        facts = RunFacts(
            run=run.id, project=run.project, name=run.name, world_size=run.world_size, config=run.config, reference=held_against
        )
        return Engine(facts)

    def restore(self, run: Run, state: bytes) -> Judge:
        try:
            return Engine.restore(state)
        except SnapshotError as error:
            # An upgrade may read no old state. The records before it are trimmed: the engine learns anew, its incidents stay as they are.
            logger.warning("the engine of run %s starts cold: %s", run.id, error)
            return self.new(run)
