"""`GET /runs/{id}/checkpoints`: what there is to resume from."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from holter_monitor.api.parts import TheCaller, TheParts, visible_run
from holter_monitor.api.shapes import Shape, moment, moment_or_none
from holter_monitor.checkpoint_stock import Stock, stock
from holter_monitor.store import checkpoints as stored

router = APIRouter(prefix="/api/v1", tags=["runs"])


class CheckpointShape(Shape):
    name: str
    step: int
    bytes: int
    state: str = Field(description="writing, complete, moved (only at the place of the copies), or what is wrong with it")
    written: str | None
    copy_state: str | None = Field(
        description="absent, comparing, verified, whole (never held against the original), or what differs; null where no copy is wanted"
    )
    expires: bool = Field(description="whether retention deletes it when the next one has come")


class CheckpointsShape(Shape):
    run: str
    folder: str | None = Field(description="null where nobody watches: set HOLTER_CHECKPOINTS")
    copy_folder: str | None
    told: str | None = Field(description="when something there last changed")
    problem: str | None = Field(description="the place does not answer; the items are what it last held")
    copy_problem: str | None
    newest: str | None = Field(description="the newest whole one")
    newest_written: str | None
    newest_copied: str | None = Field(description="the newest whose copy is whole")
    keep: int | None = Field(description="how many retention leaves, declared or seen")
    interval_seconds: float | None = Field(description="from one to the next")
    free_bytes: int | None
    room: int | None = Field(description="how many more as large as the newest would fit")
    full_seconds: float | None = Field(description="until the place is full at this pace; null where retention makes room")
    items: list[CheckpointShape] = Field(description="oldest first")
    next: None = None


@router.get("/runs/{run}/checkpoints", response_model=CheckpointsShape)
def get_checkpoints(run: str, parts: TheParts, caller: TheCaller) -> CheckpointsShape:
    """The checkpoints of a run whose place is watched (`HOLTER_CHECKPOINTS`), with their copies, and how long the room lasts."""
    with parts.control.read() as connection:
        visible_run(connection, run, caller)
        found = stock(stored.told(connection, run))
    return CheckpointsShape(run=run, **_shown(found)) if found else CheckpointsShape(run=run, **dict.fromkeys(_FIELDS), items=[])


_FIELDS = [name for name in CheckpointsShape.model_fields if name not in ("run", "items", "next")]


def _shown(found: Stock) -> dict[str, Any]:
    newest, copied, expiring = found.newest, found.newest_copied, set(found.expiring)
    return {
        "folder": found.news.folder,
        "copy_folder": found.news.copy or None,
        "told": moment(found.news.time),
        "problem": found.problem or None,
        "copy_problem": found.news.copy_problem or None,
        "newest": newest.name if newest else None,
        "newest_written": moment_or_none(newest.written or None) if newest else None,
        "newest_copied": copied.name if copied else None,
        "keep": found.keep,
        "interval_seconds": found.interval_seconds,
        "free_bytes": found.news.free,
        "room": found.room,
        "full_seconds": found.full_seconds,
        "items": [
            CheckpointShape(
                name=entry.name,
                step=entry.step,
                bytes=entry.bytes,
                state=entry.state,
                written=moment_or_none(entry.written or None),
                copy_state=entry.copy or None,
                expires=entry.name in expiring,
            )
            for entry in found.news.entries
        ],
    }
