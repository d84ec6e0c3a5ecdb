"""The start-up table: which family of tensors lies how on the mesh, and how we know. What is guessed is meant to be corrected by the reader."""

from __future__ import annotations

from holter.parallel.mesh import Mesh
from holter.tensors import Layout, Tensor

_WORDS = {"R": "replicated", "P": "partial", "?": "unknown"}


def table(layout: Layout, mesh: Mesh) -> str:
    """A line a family: name, tensors, local shape, placement on each axis, source."""
    rows = [("tensors", "count", "local shape", *mesh.compared, "known from")]
    families: dict[tuple[object, ...], list[Tensor]] = {}
    for tensor in layout.tensors:
        families.setdefault((tensor.family, tensor.shape, tuple(sorted(tensor.axes.items())), tensor.source), []).append(tensor)
    for members in families.values():
        first = members[0]
        placed = [_placement(first.axes.get(axis, "?")) for axis in mesh.compared]
        rows.append((first.family, str(len(members)), "x".join(map(str, first.shape)) or "scalar", *placed, first.source))
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    sizes = " x ".join(f"{axis} {size}" for axis, size in mesh.sizes.items()) or "one rank"
    head = f"holter watches {len(layout.tensors)} tensors on a mesh of {sizes} (mesh from: {mesh.source})"
    unknown = sum("?" in tensor.axes.values() for tensor in layout.tensors)
    tail = [f"{unknown} tensors are unknown on some axis and raise nothing above info: declare them (docs/parallel.md)"] if unknown else []
    return "\n".join([head, *lines, *tail])


def _placement(how: str) -> str:
    if how[:1] == "S":
        return f"sharded dim {how[1:]}"
    return f"alike in {how[1:]} blocks" if how[:1] == "B" else _WORDS.get(how, how)
