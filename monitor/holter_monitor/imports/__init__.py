"""Old logs -> records: a format a file. A format is recognised by what is in the log, never by its name.

A new format is its file, its line in `IMPORTERS`, a sample under tests/data with its test, and its changelog line.
"""

from __future__ import annotations

from holter_monitor.imports.boxes import Boxes
from holter_monitor.imports.delimited import Delimited
from holter_monitor.imports.document import Document, TrainerState
from holter_monitor.imports.jsonl import JsonLines
from holter_monitor.imports.keyvalue import KeyValue
from holter_monitor.imports.llmc import BuildNanogpt, LlmcLog, LlmcOutput, ModdedNanogpt, NanoGpt
from holter_monitor.imports.megatron import Megatron
from holter_monitor.imports.mllog import Mllog
from holter_monitor.imports.nanotron import Nanotron
from holter_monitor.imports.parquet import Parquet
from holter_monitor.imports.records import Head, Importer
from holter_monitor.imports.tfevents import TensorBoard
from holter_monitor.imports.torchtitan import Torchtitan
from holter_monitor.imports.transformers_output import TransformersOutput
from holter_monitor.imports.wandb_run import WandbRun

IMPORTERS: tuple[Importer, ...] = (
    Parquet(),
    WandbRun(),
    TensorBoard(),
    TrainerState(),
    JsonLines(),
    Document(),
    Mllog(),
    Nanotron(),
    Megatron(),
    Torchtitan(),
    LlmcLog(),
    LlmcOutput(),
    ModdedNanogpt(),
    NanoGpt(),
    BuildNanogpt(),
    TransformersOutput(),
    Boxes(),
    Delimited(),
    KeyValue(),
)
"""The most telling marks first; the first that recognises a log reads it."""

FORMATS = {importer.name: importer for importer in IMPORTERS}


def recognise(head: Head) -> Importer | None:
    """Who reads this log; None when nobody knows it."""
    return next((importer for importer in IMPORTERS if importer.recognises(head)), None)
