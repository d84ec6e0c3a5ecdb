"""`POST /backups`: a consistent copy of the stores, on the collector's own disk."""

from __future__ import annotations

from fastapi import APIRouter

from holter_monitor.api.parts import TheCaller, TheParts
from holter_monitor.api.shapes import Shape
from holter_monitor.backup import back_up
from holter_monitor.errors import Problem
from holter_monitor.store import audit

router = APIRouter(prefix="/api/v1/backups", tags=["health"])


class Copy(Shape):
    folder: str
    """On the collector's machine."""
    files: dict[str, int]
    """Name and bytes."""


@router.post("", status_code=201, response_model=Copy)
def post_backup(parts: TheParts, caller: TheCaller) -> Copy:
    """Copy all stores while frames go on being taken. A control store in PostgreSQL is not in it: `pg_dump` it after this answer."""
    if caller.projects is not None:
        raise Problem(403, "Not all projects are yours", field="Authorization", value=caller.project, remedy="a token without --project")
    made = back_up(parts.settings, parts.log, parts.samples, parts.janitor)
    with parts.control.write() as connection:
        audit.record(connection, caller.name, "backup", str(made.folder), made.files, now=parts.clock())
    return Copy(folder=str(made.folder), files=made.files)
