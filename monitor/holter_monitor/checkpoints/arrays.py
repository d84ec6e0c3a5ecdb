"""Arrays in files: torch's zip format and safetensors, mapped and not read until somebody looks."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from holter_monitor.checkpoints import inert
from holter_monitor.checkpoints.errors import CheckpointError

MAX_HEADER = 256 << 20
_STORAGES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
_SAFE = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
         "U8": "uint8", "BOOL": "bool"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Array:
    """A stored tensor: its shape, and `raw()` which maps its values (bfloat16 as uint16)."""

    shape: tuple[int, ...]
    dtype: str
    raw: Callable[[], NDArray[Any]]

    def values(self, *index: Any) -> NDArray[np.float32]:
        """float32 of the part that `index` picks."""
        part = self.raw()[index] if index else self.raw()
        if self.dtype == "bfloat16":
            return (np.ascontiguousarray(part).astype(np.uint32) << 16).view(np.float32)
        return np.asarray(part, np.float32)


def safetensors(path: Path) -> dict[str, Array]:
    """Raises `CheckpointError`."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 0 < length <= min(MAX_HEADER, size):
            raise CheckpointError(f"{path}: not a safetensors file (header of {length} bytes in a file of {size})")
        try:
            header = json.loads(file.read(length))
            return {name: _safe(path, 8 + length, entry, size) for name, entry in header.items() if name != "__metadata__"}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path}: not a safetensors file ({error})") from error


def _safe(path: Path, base: int, entry: dict[str, Any], size: int) -> Array:
    shape, dtype = tuple(int(n) for n in entry["shape"]), _SAFE.get(entry["dtype"], entry["dtype"])
    start, end = entry["data_offsets"]
    kind = _numpy(dtype)
    if base + end > size or (kind is not None and kind.itemsize * int(np.prod(shape)) != end - start):
        raise ValueError(f"a tensor of shape {shape} lies outside of the file")
    if kind is None:
        return Array((), dtype, lambda: np.empty((), np.uint8))
    return Array(shape, dtype, lambda: np.memmap(path, kind, "r", base + start, shape) if all(shape) else np.empty(shape, kind))


def _numpy(dtype: str) -> np.dtype[Any] | None:
    if dtype == "bfloat16":
        return np.dtype("<u2")
    try:
        return np.dtype(dtype)
    except TypeError:
        return None


def torch_file(path: Path, start: int = 0, length: int | None = None) -> Any:
    """The object in a file of `torch.save`, tensors as `Array`. `start` and `length` pick a part of the file. Raises `CheckpointError`."""
    try:
        file: BinaryIO = path.open("rb") if length is None else io.BytesIO(_window(path, start, length))
        with file, zipfile.ZipFile(file) as archive:
            return _Archive(path if length is None else None, archive).object()
    except zipfile.BadZipFile as error:
        hint = "saved by torch before 1.6, or not by torch: load and save it again with a newer torch"
        raise CheckpointError(f"{path}: not a file of torch.save in its zip format ({hint})") from error
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (OSError, ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(f"{path}: {type(error).__name__}: {error}") from error


def _window(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)


class _Archive:
    def __init__(self, path: Path | None, archive: zipfile.ZipFile) -> None:
        self.path, self.archive = path, archive
        found = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
        if found is None:
            raise CheckpointError("no data.pkl in it: not a file of torch.save")
        self.prefix = found[: -len("data.pkl")]
        if f"{self.prefix}byteorder" in archive.namelist() and archive.read(f"{self.prefix}byteorder") != b"little":
            raise CheckpointError("saved on a big-endian machine")

    def object(self) -> Any:
        return self.arrays(inert.read(self.archive.read(f"{self.prefix}data.pkl")), 0)

    def arrays(self, value: Any, depth: int) -> Any:
        """`value` with its tensors as `Array`; other objects stay inert."""
        if depth > 24:
            return value
        if isinstance(value, inert.Made):
            if value.path.startswith("torch._utils._rebuild_tensor"):
                return self._tensor(value)
            if value.path == "torch._utils._rebuild_parameter":
                return self.arrays(value.arguments[0], depth + 1)
            if value.items:
                return {key: self.arrays(inner, depth + 1) for key, inner in value.items.items()}
            return value
        if isinstance(value, dict):
            return {key: self.arrays(inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.arrays(inner, depth + 1) for inner in value]
        return value

    def _tensor(self, made: inert.Made) -> Array:
        stored, offset, shape, stride = made.arguments[:4]
        key = stored.key
        if not (isinstance(stored, inert.Stored) and isinstance(key, tuple) and len(key) >= 5):
            raise CheckpointError("a tensor without a storage")
        dtype = _STORAGES.get(key[1].path.rpartition(".")[2], key[1].path) if isinstance(key[1], inert.Name) else "?"
        kind = _numpy(dtype)
        if kind is None:
            return Array((), dtype, lambda: np.empty((), np.uint8))
        flat = self._flat(f"{self.prefix}data/{key[2]}", kind)
        needed = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True)) + 1 if all(shape) else 0
        if needed > flat[1] or offset < 0 or min(stride, default=0) < 0:
            raise CheckpointError(f"a tensor of shape {tuple(shape)} reaches beyond its storage")
        return Array(tuple(shape), dtype, lambda: _strided(flat[0](), offset, shape, stride))

    def _flat(self, name: str, kind: np.dtype[Any]) -> tuple[Callable[[], NDArray[Any]], int]:
        entry = self.archive.getinfo(name)
        if entry.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(f"{name} is compressed; torch.save never does that")
        count = entry.file_size // kind.itemsize
        if self.path is None:
            data = self.archive.read(name)
            return lambda: np.frombuffer(data, kind, count), count
        path = self.path
        with path.open("rb") as file:
            file.seek(entry.header_offset + 26)
            names, extra = struct.unpack("<HH", file.read(4))
        start = entry.header_offset + 30 + names + extra
        return lambda: np.memmap(path, kind, "r", start, (count,)), count


def _strided(flat: NDArray[Any], offset: int, shape: Sequence[int], stride: Sequence[int]) -> NDArray[Any]:
    if not all(shape):
        return np.empty(tuple(shape), flat.dtype)
    size = flat.dtype.itemsize
    return np.lib.stride_tricks.as_strided(flat[offset:], tuple(shape), tuple(s * size for s in stride), writeable=False)


def named(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Array]]:
    """All arrays in nested dicts, with their dotted names."""
    if isinstance(value, Array):
        yield path, value
    elif isinstance(value, dict) and depth < 12:
        for key, inner in value.items():
            yield from named(inner, f"{path}.{key}" if path else str(key), depth + 1)
