"""Checksums of pieces of tensors on the device that holds them: stock torch operations, nothing that waits for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from holter.checksum import ROW, column_weights, row_weights
from holter.fingerprint import BUCKETS
from holter.tensors import Piece, rows_of

if TYPE_CHECKING:
    import torch


class Checksums:
    """S1, S2, S3 of buckets of pieces (`holter.fingerprint` defines them). Two launches a piece and about twelve a bucket."""

    def __init__(self, device: torch.device, max_rows: int) -> None:
        import torch

        self._torch = torch
        self._rows = torch.from_numpy(row_weights(max(1, max_rows))).to(device)
        self._columns = torch.from_numpy(column_weights()).to(device)
        self._nothing = torch.zeros(3, dtype=torch.int64, device=device)
        self._none = torch.zeros(ROW, dtype=torch.int32, device=device)

    def block(self, buckets: Sequence[Sequence[Piece]], locals_: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(12,) int64: the checksums of four buckets."""
        assert len(buckets) == BUCKETS
        return self._torch.cat([self.bucket(bucket, locals_) for bucket in buckets])

    def bucket(self, bucket: Sequence[Piece], locals_: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(3,) int64."""
        torch = self._torch
        if not bucket:
            return self._nothing
        tables, rests = [], []
        for piece in bucket:
            lanes = lanes_of(locals_[piece.tensor.name], piece)
            whole = piece.lanes // ROW * ROW
            if whole:
                tables.append(lanes[:whole].view(-1, ROW))
            if whole < piece.lanes:
                rests.append(lanes[whole:])
        left = sum(len(rest) for rest in rests)
        if left % ROW:
            rests.append(self._none[: ROW - left % ROW])
        if rests:
            tables.append(torch.cat(rests).view(-1, ROW))
        # 32-bit sums wrap, and that is meant: they run at memory speed, and the weighted 64-bit sums after them are tiny.
        a = torch.cat([table.sum(1, dtype=torch.int32) for table in tables]).to(torch.int64)
        b = torch.stack([table.sum(0, dtype=torch.int32) for table in tables]).sum(0, dtype=torch.int32).to(torch.int64)
        assert len(a) == rows_of(bucket)
        return (self._rows[:, : len(a)] * a).sum(1) + (self._columns * b).sum(1)


def lanes_of(tensor: torch.Tensor, piece: Piece) -> torch.Tensor:
    """(lanes,) int32: the piece's bytes, without a copy where 32-bit lanes fit."""
    import torch

    flat = tensor.detach().reshape(-1)
    end = piece.start + piece.lanes
    if piece.tensor.is_packed:
        if flat.storage_offset() * flat.element_size() % 4:
            flat = flat.clone()
        return flat.view(torch.int32)[piece.start : end]
    narrow = {1: torch.int8, 2: torch.int16, 4: torch.int32}.get(flat.element_size(), torch.int8)
    return flat.view(narrow)[piece.start : end].to(torch.int32)
