"""Reads PyTorch's flight-recorder dumps, which are pickles, as plain data: no name is looked up, nothing is called, whatever the file says.

The instructions that build dicts, lists, tuples, strings, numbers, None and booleans are carried out here one by one; a file with any other
is refused whole.
"""

from __future__ import annotations

import json
import pickletools
from collections.abc import Callable
from typing import Any

MAX_BYTES = 64 << 20
"""A dump of 20,000 collectives with their frames has about 10 MB."""
MAX_INSTRUCTIONS = 8_000_000


class NotPlain(ValueError):
    """The bytes are no dump, or hold something else than plain data."""


def read(data: bytes) -> Any:
    """The object in `data`, pickled or in JSON. Raises `NotPlain`."""
    if len(data) > MAX_BYTES:
        raise NotPlain(f"{len(data)} bytes are more than a dump has")
    try:
        return json.loads(data) if data[:1] == b"{" else _unpickled(data)
    except NotPlain:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError, MemoryError, OverflowError) as error:
        raise NotPlain(f"{type(error).__name__}: {error}"[:200]) from error


def _unpickled(data: bytes) -> Any:
    stack = _Stack()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name == "STOP":
            return stack.pop()
        if count > MAX_INSTRUCTIONS:
            raise NotPlain("more instructions than any dump has")
        if opcode.name in _VALUES:
            stack.items.append(argument)
        elif (act := _ACTS.get(opcode.name)) is not None:
            act(stack, argument)
        else:
            raise NotPlain(f"the instruction {opcode.name}")
    raise NotPlain("cut off")


class _Stack:
    """The stack of the machine that pickles are written for, its marks and its memory."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        if self.marks and len(self.items) <= self.marks[-1]:
            raise IndexError("a mark where a value should be")
        return self.items.pop()

    def to_mark(self) -> list[Any]:
        place = self.marks.pop()
        found = self.items[place:]
        del self.items[place:]
        return found

    def put(self, key: Any) -> None:
        self.memo[int(key)] = self.items[-1]

    def get(self, key: Any) -> None:
        self.items.append(self.memo[int(key)])

    def extend(self, values: list[Any]) -> None:
        if not isinstance(self.items[-1], list):
            raise TypeError("items for what is no list")
        self.items[-1].extend(values)

    def set(self, pairs: list[Any]) -> None:
        into = self.items[-1]
        if not isinstance(into, dict) or len(pairs) % 2:
            raise TypeError("pairs for what is no dict")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str | int):  # a tuple as key could be nested until its hash takes for ever
                raise TypeError("a key that is neither text nor a number")
            into[key] = value

    def tuple(self, size: int) -> None:
        values = [self.pop() for _ in range(size)]
        self.items.append(tuple(reversed(values)))


def _pair(stack: _Stack, _: Any) -> None:
    value, key = stack.pop(), stack.pop()
    stack.set([key, value])


def _one(stack: _Stack, _: Any) -> None:
    stack.extend([stack.pop()])


_VALUES = frozenset(
    [
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "UNICODE",
        "BININT",
        "BININT1",
        "BININT2",
        "INT",
        "LONG1",
        "BINFLOAT",
        "FLOAT",
        "SHORT_BINBYTES",
    ]
)
_ACTS: dict[str, Callable[[_Stack, Any], None]] = {
    "PROTO": lambda stack, _: None,
    "FRAME": lambda stack, _: None,
    "NONE": lambda stack, _: stack.items.append(None),
    "NEWTRUE": lambda stack, _: stack.items.append(True),
    "NEWFALSE": lambda stack, _: stack.items.append(False),
    "MARK": lambda stack, _: stack.marks.append(len(stack.items)),
    "EMPTY_DICT": lambda stack, _: stack.items.append({}),
    "EMPTY_LIST": lambda stack, _: stack.items.append([]),
    "EMPTY_TUPLE": lambda stack, _: stack.items.append(()),
    "TUPLE": lambda stack, _: stack.items.append(tuple(stack.to_mark())),
    "TUPLE1": lambda stack, _: stack.tuple(1),
    "TUPLE2": lambda stack, _: stack.tuple(2),
    "TUPLE3": lambda stack, _: stack.tuple(3),
    "APPEND": _one,
    "APPENDS": lambda stack, _: stack.extend(stack.to_mark()),
    "SETITEM": _pair,
    "SETITEMS": lambda stack, _: stack.set(stack.to_mark()),
    "MEMOIZE": lambda stack, _: stack.put(len(stack.memo)),
    "BINPUT": lambda stack, key: stack.put(key),
    "LONG_BINPUT": lambda stack, key: stack.put(key),
    "BINGET": lambda stack, key: stack.get(key),
    "LONG_BINGET": lambda stack, key: stack.get(key),
}
