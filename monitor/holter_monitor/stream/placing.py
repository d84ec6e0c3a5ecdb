"""To which step the rows of frames belong, and how many frames can be taken in before one of them changes more than the cells of its rows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from holter.frame import NODE_RANK

from holter_monitor.stream.cells import Block, Keys, Rows
from holter_monitor.stream.steps import Mask

MAX_STEP = 2**47 - 1
LAP = 2**47


@dataclass(frozen=True, slots=True)
class Placed:
    """Rows and where they belong."""

    rows: Rows
    block: Block
    good: Mask
    own: Mask
    """The rows that say that their rank has reached their step."""
    keys: Keys
    """Lap and step of each row as one number; -1 = of no step."""
    back: Mask
    """The rows with which their rank goes back to an earlier step."""
    reached: Keys
    """Where all ranks are with them."""


def place(rows: Rows, block: Block, good: Mask, *, reached: Keys, in_order: bool) -> Placed:
    """`reached`: where the ranks were before. A sample belongs to the lap its rank is in. What is not in order turns no rank back."""
    rank, own, reached = rows.rank, block.own & good & (rows.step >= 0), reached.copy()
    keys, back = np.full(len(rank), -1, np.int64), np.zeros(len(rank), np.bool_)
    mine = np.flatnonzero(own)
    mine = mine[np.argsort(rank[mine], kind="stable")]
    if len(mine):
        who, step = rank[mine], rows.step[mine]
        first = np.concatenate(([True], who[1:] != who[:-1]))
        begins, runs = np.flatnonzero(first), np.cumsum(first) - 1
        before = np.where(first, reached[who], np.concatenate(([0], step[:-1])))
        lap = np.maximum(before[begins], 0) // LAP
        turns = (step < np.where(first, np.where(before < 0, -1, before % LAP), before)) & in_order
        turned = np.cumsum(turns)
        keys[mine] = (lap[runs] + turned - (turned - turns)[begins][runs]) * LAP + step
        back[mine] = turns
        np.maximum.at(reached, who, keys[mine])
    others = np.flatnonzero(~own & good & (rows.step >= 0))
    keys[others] = np.maximum(reached[rank[others]], 0) // LAP * LAP + rows.step[others]
    return Placed(rows, block, good, own, keys, back, reached)


def before_unfit(rows: Rows, ranks: int) -> int:
    """How many frames come before the first with a row that is out of range, or of a rank beyond the `ranks` that have a place."""
    good = (rows.rank >= 0) & (rows.rank < ranks) & (rows.step >= -1) & (rows.step <= MAX_STEP)
    bad = ~good & (rows.rank != NODE_RANK)
    return rows.frame_at(int(bad.argmax())) if bad.any() else len(rows.frames)


def before_last(rows: Rows, behind: Mask) -> int:
    """How many frames come before the one with which all ranks that are `behind` have been heard of: only that one may close a step."""
    ours = np.flatnonzero((rows.rank >= 0) & (rows.rank < len(behind)))
    ours = ours[behind[rows.rank[ours]]]
    who, at = np.unique(rows.rank[ours], return_index=True)
    if len(who) < int(behind.sum()):
        return len(rows.frames)
    return rows.frame_at(int(ours[at.max()])) if len(who) else 0


def before_turn(placed: Placed, closed: int, pending: Collection[int], room: int) -> int:
    """How many frames come before the first that turns a rank back, or that begins a step when `room` of them have begun."""
    first = [int(placed.back.argmax())] if placed.back.any() else []
    keys, at = np.unique(placed.keys, return_index=True)
    begun = sorted(row for key, row in zip(keys.tolist(), at.tolist(), strict=True) if key > closed and key not in pending)
    first += begun[max(0, room) :][:1]
    return placed.rows.frame_at(min(first)) if first else len(placed.rows.frames)
