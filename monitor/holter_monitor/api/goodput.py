"""`GET /runs/{id}/goodput`: where the wall time went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from holter_monitor import goodput
from holter_monitor.api.parts import TheCaller, TheParts, visible_run
from holter_monitor.api.shapes import Shape
from holter_monitor.store import goodput as stored

router = APIRouter(prefix="/api/v1", tags=["runs"])


class Parts(Shape):
    """Seconds of wall time, none in two of them: they add up to `wall_seconds`."""

    wall_seconds: float | None = Field(description="from the first attempt's start to the newest word, gaps between attempts included")
    productive_seconds: float | None = Field(
        description="effective training time: steps that count, each at most as long as the median step"
    )
    startup_seconds: float | None = Field(description="from an attempt's start to its first step, and its first steps' excess")
    data_seconds: float | None = Field(description="waiting for data, by the rank that waited longest")
    stragglers_seconds: float | None = Field(description="waiting for ranks that an incident calls slow or throttled")
    checkpoints_seconds: float | None = Field(description="what steps took beyond the median at a declared checkpoint")
    evaluations_seconds: float | None = Field(description="the same at a declared evaluation")
    stalls_seconds: float | None = Field(description="what steps took beyond the median otherwise, and hangs")
    recomputed_seconds: float | None = Field(description="steps that a later attempt did again")
    down_seconds: float | None = Field(description="between attempts")
    other_seconds: float | None = Field(description="in an attempt, but in no step that was recorded")


class Reliability(Shape):
    failures: int = Field(description="attempts that failed, were lost or preempted")
    seconds_between_failures: float | None = Field(description="mean time between failures: what the attempts lived, over how many broke")
    seconds_to_recover: float | None = Field(description="mean time to recover: from a failure to the next attempt's first step")


class BreakShape(Shape):
    attempt: str
    state: str
    down_seconds: float | None = Field(description="until the next attempt began; null while there is none")
    startup_seconds: float
    recomputed_seconds: float
    cost_seconds: float = Field(description="the three together")


class GoodputShape(Parts, Reliability):
    run: str
    goodput: float | None = Field(description="productive over wall, never above 1; null before the first timed step")
    breaks: list[BreakShape]


@router.get("/runs/{run}/goodput", response_model=GoodputShape)
def get_goodput(run: str, parts: TheParts, caller: TheCaller) -> GoodputShape:
    with parts.control.read() as connection:
        visible_run(connection, run, caller)
        lives = stored.lives(connection, run)
    broken = goodput.breaks(lives)
    return GoodputShape(
        run=run,
        **seconds_of(goodput.account(lives).totals() if lives else None),
        **rates([each.recovery_seconds for each in broken], goodput.lived_seconds(lives)),
        breaks=[
            BreakShape(
                attempt=each.attempt,
                state=each.state,
                down_seconds=each.down_seconds,
                startup_seconds=each.startup_seconds,
                recomputed_seconds=each.recomputed_seconds,
                cost_seconds=each.cost_seconds,
            )
            for each in broken
        ],
    )


def seconds_of(totals: dict[str, float] | None) -> dict[str, Any]:
    """The fields of `Parts` and the share that was productive."""
    if totals is None:
        return {f"{cause}_seconds": None for cause in ("wall", *goodput.CAUSES)} | {"goodput": None}
    wall = sum(totals.values())
    share = min(1.0, totals["productive"] / wall) if wall > 0 else None  # min: the sum's last bit
    return {f"{cause}_seconds": seconds for cause, seconds in totals.items()} | {"wall_seconds": wall, "goodput": share}


def rates(recoveries: Sequence[float | None], lived: float) -> dict[str, Any]:
    """The fields of `Reliability`, of attempts that broke: how long it took to train again, None where nobody has yet."""
    back = [seconds for seconds in recoveries if seconds is not None]
    return {
        "failures": len(recoveries),
        "seconds_between_failures": lived / len(recoveries) if recoveries else None,
        "seconds_to_recover": sum(back) / len(back) if back else None,
    }
