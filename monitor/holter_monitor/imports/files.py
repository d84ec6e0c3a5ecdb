"""Where logs come from: paths walked, compression undone by content, lines of bounded length."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from holter_monitor.imports.records import BrokenLines, Head, LogError

HEAD_BYTES = 1 << 20
"""How much of a log is looked at to recognise it: some logs open with the whole training script."""
LINE_BYTES = 1 << 20
"""The longest line that is read; a longer one is broken."""
DOCUMENT_BYTES = 512 << 20
"""The longest log that must be held whole (one JSON document)."""

_BROKEN_STREAM = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError)


@dataclass(slots=True)
class LogFile:
    """One log, opened anew for each pass; collects what was wrong with its lines."""

    path: Path
    parts: tuple[Path, ...] = ()
    """The files of one log that is kept in several (TensorBoard); else only `path`."""
    broken: BrokenLines = field(default_factory=BrokenLines)
    notes: list[str] = field(default_factory=list)
    """What a reader should know and is no error."""

    def __str__(self) -> str:
        return str(self.path)

    def failed(self, reason: str, expected: str, line: int | None = None) -> LogError:
        return LogError(str(self.path), reason, expected=expected, line=line)

    @contextmanager
    def open(self, path: Path | None = None) -> Iterator[BinaryIO]:
        """The bytes, decompressed. Raises `LogError` when the file cannot be opened, or breaks off while it is read inside the block."""
        try:
            with (path or self.path).open("rb") as raw, _decompressed(raw) as stream:
                yield stream
        except _BROKEN_STREAM as error:
            raise self.failed(_said(error), "a readable file, whole to its end") from error

    def head(self) -> Head:
        with self.open(self.parts[0] if self.parts else None) as stream:
            try:
                start = stream.read(HEAD_BYTES)
            except _BROKEN_STREAM:
                start = b""
        if not start:
            # Broken within its first bytes, or empty: read byte by byte to have what there is.
            start = self._salvaged_head()
        return Head(str(self.path), start)

    def _salvaged_head(self) -> bytes:
        kept = bytearray()
        with self.open(self.parts[0] if self.parts else None) as stream:
            try:
                while len(kept) < HEAD_BYTES and (piece := stream.read(256)):
                    kept += piece
            except _BROKEN_STREAM:
                if not kept:
                    raise
        return bytes(kept)

    def lines(self) -> Iterator[tuple[int, str]]:
        """`(number, text)` without line ends. A line over `LINE_BYTES` is counted as broken and skipped. A progress bar overwrites its line
        (`\\r`): what it overwrote is a line of its own, under the same number."""
        number = 0
        try:
            with self.open() as raw:
                stream = _as_utf8(raw)
                while line := stream.readline(LINE_BYTES):
                    number += 1
                    if len(line) >= LINE_BYTES and not line.endswith(b"\n"):
                        self.broken.add(number, f"longer than {LINE_BYTES} bytes; expected one record")
                        while (rest := stream.readline(LINE_BYTES)) and not rest.endswith(b"\n"):
                            pass
                        continue
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8", "replace").rstrip("\r\n")
                    if "\r" in text:
                        yield from ((number, part) for part in text.split("\r") if part)
                    else:
                        yield number, text
        except LogError as error:
            raise self.failed(error.reason, error.expected, number + 1) from error

    def document(self) -> bytes:
        """The whole content, for formats that are one document."""
        with self.open() as raw:
            content = _as_utf8(raw).read(DOCUMENT_BYTES + 1)
        if len(content) > DOCUMENT_BYTES:
            raise self.failed(f"over {DOCUMENT_BYTES >> 20} MiB in one document", "a smaller document, or the same records as JSON lines")
        return content


class _Utf16Lines(io.RawIOBase):
    """UTF-16 as UTF-8: what PowerShell's `>` makes of a log."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text, self._rest = text, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        if not self._rest:
            self._rest = self._text.read(1 << 16).encode("utf-8", "replace")
        taken = self._rest[: len(view)]
        view[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        return len(taken)


def _as_utf8(raw: BinaryIO) -> io.BufferedReader:
    stream = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, raw), 1 << 16)
    if stream.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = io.TextIOWrapper(stream, "utf-16", errors="replace", newline="")
        return io.BufferedReader(_Utf16Lines(text), 1 << 16)
    return stream


def _decompressed(raw: BinaryIO) -> BinaryIO:
    magic = raw.read(6)
    raw.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return cast(BinaryIO, gzip.open(raw))
    if magic[:4] == b"\x28\xb5\x2f\xfd":
        return cast(BinaryIO, io.BufferedReader(_WholeZstd(raw), 1 << 16))
    if magic == b"\xfd7zXZ\x00":
        return cast(BinaryIO, lzma.open(raw))
    if magic[:3] == b"BZh":
        return cast(BinaryIO, bz2.open(raw))
    return raw


class _WholeZstd(io.RawIOBase):
    """Zstandard's stream reader takes an end in mid-frame for the end of the data; a log that breaks off must say so."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._frame = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
        self._rest, self._in_frame = b"", False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        while not self._rest:
            piece = self._raw.read(1 << 14)
            if not piece:
                if self._in_frame:
                    raise EOFError("compressed data ended before its end was marked")
                return 0
            self._rest = self._decompress(piece)
        taken = self._rest[: len(view)]
        view[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        return len(taken)

    def _decompress(self, piece: bytes) -> bytes:
        out = bytearray()
        while piece:
            self._in_frame = True
            out += self._frame.decompress(piece)
            piece = b""
            if self._frame.eof:
                piece = self._frame.unused_data
                self._frame, self._in_frame = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj(), False
        return bytes(out)


def _said(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"compressed data is damaged or cut off ({error})"


# ------------------------------------------------------------------ walking

SUMMARIES = frozenset({"wandb-summary.json", "wandb-metadata.json", "all_results.json", "train_results.json", "eval_results.json"})
"""What frameworks leave beside a log: last values, in the same words, and no record of a step."""


def find(path: Path) -> list[LogFile]:
    """The logs under `path`: itself, or every file below it, sorted. Event files of one folder are one log; of the `trainer_state.json` of
    several checkpoints only the last one counts, for each repeats its predecessors."""
    if path.is_file():
        return [LogFile(path)]
    if not path.exists():
        raise LogError(str(path), "no such file or folder", expected="a log or a folder of logs")
    files = sorted(
        Path(folder, name)
        for folder, subfolders, names in os.walk(path, onerror=_unreadable)
        if _descend(subfolders)
        for name in names
        if not name.startswith(".") and name not in SUMMARIES
    )
    return _gather([file for file in files if file.is_file()])


def _descend(subfolders: list[str]) -> bool:
    """Hidden folders hold no logs; `os.walk` follows what is left in the list, and no links."""
    subfolders[:] = [name for name in subfolders if not name.startswith(".")]
    return True


def _unreadable(error: OSError) -> None:
    raise LogError(str(error.filename), (error.strerror or "unreadable").lower(), expected="a folder that can be listed") from error


def _gather(files: list[Path]) -> list[LogFile]:
    logs: list[LogFile] = []
    events: dict[Path, list[Path]] = {}
    states: dict[Path, tuple[int, Path]] = {}
    for file in files:
        if ".tfevents." in file.name:
            events.setdefault(file.parent, []).append(file)
        elif file.name == "trainer_state.json" and file.parent.name.startswith("checkpoint-"):
            number = int(file.parent.name.partition("-")[2]) if file.parent.name.partition("-")[2].isdigit() else -1
            states[file.parent.parent] = max(states.get(file.parent.parent, (-1, file)), (number, file))
        else:
            logs.append(LogFile(file))
    logs += [LogFile(parts[0] if len(parts) == 1 else folder, tuple(parts)) for folder, parts in events.items()]
    logs += [LogFile(file) for _, file in states.values()]
    return sorted(logs, key=lambda log: str(log.path))
