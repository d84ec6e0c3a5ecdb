"""Where checkpoints lie: a directory, or whatever fsspec can open by its address (`pip install 'holter[remote]'` and the store's own package)."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from holter.errors import ShelfError

MAX_FILES = 100_000


@dataclass(frozen=True, slots=True)
class File:
    """`stamp` changes when the file does; `written` is when, in unix seconds, by the store's clock; 0.0 where it does not say."""

    bytes: int
    stamp: str
    written: float = 0.0


class Shelf(Protocol):
    """All methods raise `OSError` or `ShelfError` where the place cannot be looked at. A place that does not exist is empty."""

    address: str
    """As it is told to people: without user and password."""

    def names(self) -> list[str]: ...

    def files(self, name: str) -> dict[str, File]:
        """By their path within `name`; a checkpoint that is one file is `{"": …}`. Raises `FileNotFoundError`."""

    def read(self, path: str, start: int, length: int) -> bytes:
        """Of `name/path`; less than `length` at the end."""

    def free(self) -> int | None:
        """Bytes that can still be written; None where there is no such limit."""


def open_shelf(address: str) -> Shelf:
    """Raises `ShelfError`."""
    return RemoteShelf(address) if "://" in address else LocalShelf(address)


class LocalShelf:
    def __init__(self, address: str) -> None:
        self.address = address
        self._root = Path(address).expanduser()

    def names(self) -> list[str]:
        try:
            return os.listdir(self._root)
        except FileNotFoundError:
            return []

    def files(self, name: str) -> dict[str, File]:
        top = self._root / name
        if not top.is_dir():
            return {"": _stat(top)}
        found: dict[str, File] = {}
        for folder, _, names in os.walk(top, onerror=_raise):
            for each in names:
                path = Path(folder, each)
                found[path.relative_to(top).as_posix()] = _stat(path)
            _bounded(name, len(found))
        return found

    def read(self, path: str, start: int, length: int) -> bytes:
        with open(self._root / path, "rb") as file:
            file.seek(start)
            return file.read(length)

    def free(self) -> int | None:
        try:
            return shutil.disk_usage(self._root).free
        except FileNotFoundError:
            return None


class RemoteShelf:
    """Each look asks the store anew: a listing that fsspec remembers would still hold what was deleted."""

    def __init__(self, address: str) -> None:
        self.address = without_secrets(address)
        try:
            import fsspec
        except ImportError:
            raise ShelfError(f"{self.address} wants fsspec: pip install 'holter[remote]'") from None
        try:
            self._files, root = fsspec.core.url_to_fs(address)
        except (ImportError, ValueError) as error:
            raise ShelfError(f"{self.address}: {error}") from error
        self._root = str(root).rstrip("/")

    def names(self) -> list[str]:
        with self._asked():
            self._files.invalidate_cache()
            try:
                return sorted({str(path).rstrip("/").rpartition("/")[2] for path in self._files.ls(self._root, detail=False)})
            except FileNotFoundError:
                return []

    def files(self, name: str) -> dict[str, File]:
        top = f"{self._root}/{name}"
        with self._asked():
            found = {str(path)[len(top) + 1 :]: _of(info) for path, info in self._files.find(top, detail=True).items()}
            if not found and not self._files.exists(top):
                raise FileNotFoundError(top)
        _bounded(name, len(found))
        return found

    def read(self, path: str, start: int, length: int) -> bytes:
        with self._asked():
            return bytes(self._files.cat_file(f"{self._root}/{path}", start=start, end=start + length))

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        """Every store has exceptions of its own; for the watch they are all the same: no answer."""
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:
            raise ShelfError(f"{self.address}: {type(error).__name__}: {error}"[:300]) from error

    def free(self) -> int | None:
        return None


def _stat(path: Path) -> File:
    stat = path.stat()
    return File(stat.st_size, str(stat.st_mtime_ns), stat.st_mtime)


def _of(info: dict[str, Any]) -> File:
    """Stores name the time of writing differently; what they all have is a size."""
    moment = next((info[key] for key in ("mtime", "LastModified", "last_modified", "updated", "created") if info.get(key)), None)
    written = float(moment) if isinstance(moment, int | float) else float(getattr(moment, "timestamp", float)())
    return File(int(info.get("size") or 0), str(info.get("ETag") or info.get("etag") or moment), written)


def without_secrets(address: str) -> str:
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _bounded(name: str, count: int) -> None:
    if count > MAX_FILES:
        raise ShelfError(f"{name} holds more than {MAX_FILES:,} files")


def _raise(error: OSError) -> None:
    raise error
