"""The other wire: 64 little-endian int64 words with which a rank describes its tensors."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

VERSION: Final = 1
WORDS: Final = 64
BYTES: Final = 8 * WORDS
BUCKETS: Final = 4
SKETCH: Final = 32
"""Dimensions of the shard sketch."""
DRIFT: Final = 8
"""Dimensions of the replica sketches."""


class Slot(IntEnum):
    """Where the words of a fingerprint begin."""

    VERSION = 0
    STEP = 1
    INDEX = 2  # fingerprints of this rank before this one: the seed of what is sampled
    LR = 3  # f64; several groups are combined so that each counts
    BATCH = 4  # checksum of the token ids; 0 = not known
    POSITION = 5  # hash of the dataloader's position; 0 = not known
    RNG = 6  # hash of the default generator
    MODEL_RNG = 7  # hash of the model-parallel generator; 0 = none
    LAYOUT = 8
    FLAGS = 9
    UPDATE = 10  # 2 x f32: norm of the sampled change of this step, model and data block; 0 = not known
    TIED = 11  # S3 of a part of the tensors declared as tied; 0 = none here
    AT_REST = 12  # bit mask of the data buckets that changed between two optimizer steps; -1 = not checked
    AT_REST_CHANGE = 13  # S1..S3, after minus before, summed over those buckets
    MODEL = 16  # 4 buckets x (S1, S2, S3) of tensors replicated over model axes (tp, cp, ep)
    MODEL_SKETCH = 28  # 8 x f32
    DATA = 32  # 4 buckets x (S1, S2, S3) of a rotating part of all tensors
    DATA_SKETCH = 44  # 8 x f32
    SHARD = 48  # 32 x f32: one family of sharded tensors


class Flag(IntEnum):
    """Bits of `Slot.FLAGS`; the high half counts the tensors left out of the shard sketch because they are constant."""

    DROPOUT = 1


CONSTANT_SHIFT: Final = 32
