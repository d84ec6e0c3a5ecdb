"""Whether the files of a checkpoint are all there and whole, by what the formats say of themselves. Headers, indices and ends are read, never tensors."""

from __future__ import annotations

import json
import pickletools
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TypeAlias

from holter.checkpoints.shelf import MAX_FILES, File

Read: TypeAlias = Callable[[str, int, int], bytes]
"""`read(path, start, length)` within the checkpoint."""
MARKERS = ("COMPLETE", "_COMPLETE", "COMMITTED", "_SUCCESS", ".complete", ".done", "commit_success.txt")
"""Files that trainers write last; where the sibling checkpoints have one, a whole one has it."""
_SHARD = re.compile(r"^(?P<stem>.*)-(?P<number>\d+)-of-(?P<count>\d+)(?P<suffix>\..*)?$")
_PARTIAL = (".tmp", ".part", ".partial", ".incomplete")
_ZIPPED = (".pt", ".pth", ".bin", ".ckpt")
_MAX_HEADER, _MAX_INDEX = 100 << 20, 64 << 20


@dataclass(frozen=True, slots=True)
class Contents:
    """The files of one checkpoint, and how to read in them."""

    name: str
    files: Mapping[str, File]
    read: Read

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files.values())


def problem(contents: Contents, demanded: Collection[str] = ()) -> str:
    """What a checkpoint lacks; empty where it is whole. `demanded`: patterns of which each must match a file. Raises as its shelf."""
    if not any(file.bytes for file in contents.files.values()):
        return "it is empty"
    return next((wrong for wrong in _wrongs(contents, demanded) if wrong), "")


def _wrongs(contents: Contents, demanded: Collection[str]) -> Iterator[str]:
    names = set(contents.files)
    if contents.name.endswith(_PARTIAL):
        yield "its name says that it is not finished"
    for pattern in demanded:
        yield "" if any(fnmatch(name, pattern) for name in names) else f"{pattern} is missing"
    for name in contents.files:
        path = name or contents.name
        if path.endswith(_PARTIAL):
            yield f"{name} is a partial file"
        elif path.endswith(".safetensors"):
            yield _cut_safetensors(contents, name)
        elif path.endswith(_ZIPPED):
            yield _cut_archive(contents, name)
        elif path.endswith(".index.json"):
            yield _lacking_of_index(contents, name)
    yield from _lacking_shards(names)
    yield _lacking_of_dcp(contents)
    if "training_args.bin" in names and re.fullmatch(r"checkpoint-\d+", contents.name) and "trainer_state.json" not in names:
        yield "trainer_state.json is missing"


def _cut_safetensors(contents: Contents, name: str) -> str:
    """A safetensors file tells in its header how long it must be."""
    size, shown = contents.files[name].bytes, name or contents.name
    length = int.from_bytes(contents.read(name, 0, 8), "little") if size >= 8 else 0
    if size < 8 or length > min(size - 8, _MAX_HEADER):
        return f"{shown} is cut within its header"
    try:
        header = json.loads(contents.read(name, 8, length))
        expected = 8 + length + max((entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return f"{shown} has a header that cannot be read"
    return "" if size == expected else f"{shown} has {size:,} bytes of {expected:,}"


def _cut_archive(contents: Contents, name: str) -> str:
    """`torch.save` writes a zip archive: its directory is its end. Files of another kind are taken as they are."""
    size = contents.files[name].bytes
    if size < 22 or contents.read(name, 0, 4) != b"PK\x03\x04":
        return ""
    return "" if b"PK\x05\x06" in contents.read(name, max(0, size - 1024), 1024) else f"{name or contents.name} is cut: its end is missing"


def _lacking_shards(names: Collection[str]) -> Iterator[str]:
    """`model-00003-of-00017.safetensors` says how many there must be; some count from zero."""
    families: dict[tuple[str, str, int, int], int] = {}
    for name in names:
        folder, _, base = name.rpartition("/")
        shard = _SHARD.match(base)
        if shard and int(shard["count"]) <= MAX_FILES:
            start = f"{folder}/{shard['stem']}-" if folder else f"{shard['stem']}-"
            family = (start, f"-of-{shard['count']}{shard['suffix'] or ''}", len(shard["number"]), int(shard["count"]))
            families[family] = min(families.get(family, 1), int(shard["number"]))
    for (start, end, width, count), first in sorted(families.items()):
        yield _missing({f"{start}{number:0{width}d}{end}" for number in range(first, first + count)}, names)


def _lacking_of_index(contents: Contents, name: str) -> str:
    """The index of sharded safetensors or of sharded `.bin` files names the file of each tensor."""
    if contents.files[name].bytes > _MAX_INDEX:
        return ""
    folder = name.rpartition("/")[0]
    try:
        named = json.loads(contents.read(name, 0, _MAX_INDEX))["weight_map"].values()
        needed = {f"{folder}/{each}" if folder else str(each) for each in named}
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{name} cannot be read"
    return _missing(needed, contents.files)


def _lacking_of_dcp(contents: Contents) -> str:
    """PyTorch's distributed checkpoints: the coordinator writes `.metadata` last, a pickle that names every file. Only its strings are looked at."""
    folders = {name.rpartition("/")[0] for name in contents.files if name.endswith(".distcp")}
    for folder in sorted(folders):
        prefix = f"{folder}/" if folder else ""
        index = contents.files.get(f"{prefix}.metadata")
        if index is None:
            return f"{prefix}.metadata is missing"
        if index.bytes > _MAX_INDEX:
            continue
        try:
            words = pickletools.genops(contents.read(f"{prefix}.metadata", 0, index.bytes))
            needed = {f"{prefix}{word}" for _, word, _ in words if isinstance(word, str) and word.endswith(".distcp")}
        except (ValueError, IndexError):
            return f"{prefix}.metadata cannot be read"
        wrong = _missing(needed, contents.files)
        if wrong:
            return wrong
    return ""


def _missing(needed: Collection[str], names: Collection[str]) -> str:
    missing = sorted(set(needed) - set(names))
    return f"{len(missing)} of {len(needed)} shards are missing, first {missing[0]}" if missing else ""
