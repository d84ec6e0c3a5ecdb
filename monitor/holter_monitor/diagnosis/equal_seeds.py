"""Shards that must differ are equal: the same seed on ranks that hold different parts."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, beside, kind_is

EQUAL_SEEDS = Cause(
    name="equal_seeds",
    explains=("tp_duplicate_shards", "reference_gap", "replica_mismatch"),
    sentence="ranks that hold different parts of a tensor were initialised with the same seed",
    action="add the tensor-parallel rank to the seed of initialisation, and start again: a run that began like this stays worse",
    clues=(Clue(4.5, kind_is("tp_duplicate_shards")), Clue(4.0, beside("tp_duplicate_shards"))),
)
