"""What the Hugging Face Trainer prints: `{'loss': 1.55, 'grad_norm': 0.9, 'learning_rate': 2.9e-05, 'epoch': 0.22}` among progress bars. It tells no step."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

from holter_monitor.imports.files import LogFile
from holter_monitor.imports.jsonl import from_row
from holter_monitor.imports.records import Head, Record
from holter_monitor.imports.tables import Columns
from holter_monitor.imports.text import records

_LINE = re.compile(r"(\{'(?:loss|eval_loss|eval_\w+)': .*\})")
_NOT_FINITE = re.compile(r"(?<![\w'])(-?)(nan|inf)(?![\w'])")


class TransformersOutput:
    name: ClassVar[str] = "transformers-output"

    def recognises(self, head: Head) -> bool:
        return "{'loss': " in head.text and "'epoch': " in head.text

    def read(self, log: LogFile, columns: Mapping[str, str]) -> Iterator[Record]:
        """Records are counted; multiply by the Trainer's `logging_steps` for its steps. `trainer_state.json` has them."""
        known = Columns(columns)

        def parse(_line: str, found: re.Match[str]) -> Record | None:
            try:
                row = ast.literal_eval(_NOT_FINITE.sub(r"'\1\2'", found[1]))
            except (SyntaxError, MemoryError, RecursionError) as error:
                raise ValueError("no dict; expected what the Trainer prints") from error
            # The last line tells averages over the whole run.
            return None if "train_runtime" in row else from_row(row, known)

        return records(log, _LINE, parse)
