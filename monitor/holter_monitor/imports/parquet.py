"""Parquet: row batches of flat columns (wandb's history exports, anybody's own). A null is "not logged", a NaN was logged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from holter_monitor.imports.files import LogFile
from holter_monitor.imports.records import Head, Record
from holter_monitor.imports.tables import CellError, Columns, record

_BATCH = 8192


class Parquet:
    name: ClassVar[str] = "parquet"

    def recognises(self, head: Head) -> bool:
        return head.start.startswith(b"PAR1")

    def read(self, log: LogFile, columns: Mapping[str, str]) -> Iterator[Record]:
        import pyarrow as arrow
        from pyarrow import parquet

        try:
            with parquet.ParquetFile(log.path) as table:
                names = [field.name for field in table.schema_arrow if not arrow.types.is_nested(field.type)]
                known = Columns(columns)
                known.add(names)
                log.notes += known.renamed
                meanings = [known.targets[name] for name in names]
                row = 0
                for batch in table.iter_batches(_BATCH, columns=names):
                    for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                        row += 1
                        try:
                            yield record(zip(meanings, cells, strict=False))
                        except CellError as error:
                            log.broken.add(row, str(error))
        except (arrow.ArrowException, OSError) as error:
            raise log.failed(f"damaged: {str(error).splitlines()[0][:120]}", "a Parquet file, whole") from error
