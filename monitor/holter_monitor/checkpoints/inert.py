"""Reads the serialised objects in a .pt file as plain data: nothing is imported, nothing is called, whatever the file says.

`torch.load(weights_only=True)` refuses Megatron's checkpoints, which carry their arguments as a Namespace; unpickling them would run what they
hold. Here a class is a name, an instance is its name with its arguments and state, and a reader picks from that what it knows.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from holter_monitor.checkpoints.errors import CheckpointError

MAX_OBJECTS = 20_000_000


@dataclass(eq=False, slots=True)
class Name:
    """A class or function that the file names: "torch.FloatStorage"."""

    path: str


@dataclass(eq=False, slots=True)
class Made:
    """What the file would make: `kind(*arguments)`, then `state`, then items."""

    kind: Any
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return self.kind.path if isinstance(self.kind, Name) else ""

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute of its state."""
        return self.state.get(name, default) if isinstance(self.state, dict) else default


@dataclass(eq=False, slots=True)
class Stored:
    """A reference to something outside of the object: a storage of a tensor."""

    key: Any


_MARK = object()


def read(data: bytes) -> Any:
    """The object in `data`. Raises `CheckpointError` for what is no such object."""
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if opcode.name == "STOP":
                return machine.stack[-1]
            if count > MAX_OBJECTS:
                raise CheckpointError("more objects than any checkpoint has")
            machine.run(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"not a serialised object ({type(error).__name__}: {error})") from error
    raise CheckpointError("the serialised object is cut off")


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, name: str, argument: Any) -> None:
        action = _ACTIONS.get(name)
        if action is not None:
            action(self, argument)
        elif name in _LITERALS or argument is not None:
            self.stack.append(argument)
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"unknown instruction {name}")

    def to_mark(self) -> list[Any]:
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise IndexError("no mark")
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items

    def put(self, key: Any) -> None:
        self.memo[int(key)] = self.stack[-1]

    def make(self, count: int) -> None:
        parts = self.stack[-count:]
        del self.stack[-count:]
        arguments = parts[1] if isinstance(parts[1], tuple) else (parts[1],)
        self.stack.append(_known(parts[0], arguments) or Made(parts[0], arguments))

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Made):
            target.state = state[0] if isinstance(state, tuple) and len(state) == 2 and state[0] else state

    def set_items(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        into = target.items if isinstance(target, Made) else target
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            into[key if _is_hashable(key) else id(key)] = value

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(values)

    def forget(self, _: Any) -> None:
        """Taken from the stack and not kept."""

    def name(self, module: Any, attribute: Any) -> None:
        self.stack.append(Name(f"{module}.{attribute}"))


def _known(kind: Any, arguments: tuple[Any, ...]) -> Any:
    """Plain containers that checkpoints are made of."""
    if isinstance(kind, Name) and kind.path == "torch.Size":
        return tuple(arguments[0])
    if isinstance(kind, Name) and kind.path == "copyreg._reconstructor":
        return Made(arguments[0])
    return None


def _is_hashable(key: Any) -> bool:
    try:
        hash(key)
    except TypeError:
        return False
    return True


def _push(value: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(value())


def _tuple(count: int) -> Callable[[_Machine, Any], None]:
    def act(machine: _Machine, _: Any) -> None:
        parts = tuple(machine.stack[-count:])
        del machine.stack[-count:]
        machine.stack.append(parts)

    return act


def _pair(machine: _Machine, _: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.set_items([key, value])


def _stack_name(machine: _Machine, _: Any) -> None:
    attribute, module = machine.stack.pop(), machine.stack.pop()
    machine.name(module, attribute)


def _dict(machine: _Machine, _: Any) -> None:
    pairs = machine.to_mark()
    machine.stack.append({})
    machine.set_items(pairs)


def _append(machine: _Machine, _: Any) -> None:
    value = machine.stack.pop()
    machine.extend([value])


_LITERALS = {"NONE", "NEWTRUE", "NEWFALSE"}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "NONE": _push(lambda: None),
    "NEWTRUE": _push(lambda: True),
    "NEWFALSE": _push(lambda: False),
    "MARK": _push(lambda: _MARK),
    "EMPTY_DICT": _push(dict),
    "EMPTY_LIST": _push(list),
    "EMPTY_TUPLE": _push(tuple),
    "EMPTY_SET": _push(list),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.to_mark())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "LIST": lambda machine, _: machine.stack.append(machine.to_mark()),
    "FROZENSET": lambda machine, _: machine.stack.append(machine.to_mark()),
    "DICT": _dict,
    "APPEND": _append,
    "APPENDS": lambda machine, _: machine.extend(machine.to_mark()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.to_mark()),
    "SETITEM": _pair,
    "SETITEMS": lambda machine, _: machine.set_items(machine.to_mark()),
    "GLOBAL": lambda machine, words: machine.name(*words.split(" ", 1)),
    "STACK_GLOBAL": _stack_name,
    "REDUCE": lambda machine, _: machine.make(2),
    "NEWOBJ": lambda machine, _: machine.make(2),
    "NEWOBJ_EX": lambda machine, _: machine.make(3),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.stack.append(Stored(machine.stack.pop())),
    "PERSID": lambda machine, key: machine.stack.append(Stored(key)),
    "POP": lambda machine, _: machine.forget(machine.stack.pop()),
    "POP_MARK": lambda machine, _: machine.forget(machine.to_mark()),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "BINPUT": lambda machine, key: machine.put(key),
    "LONG_BINPUT": lambda machine, key: machine.put(key),
    "PUT": lambda machine, key: machine.put(key),
    "BINGET": lambda machine, key: machine.stack.append(machine.memo[int(key)]),
    "LONG_BINGET": lambda machine, key: machine.stack.append(machine.memo[int(key)]),
    "GET": lambda machine, key: machine.stack.append(machine.memo[int(key)]),
}
