"""One process stands still: stopped by a signal, a debugger, a full pipe, a dead file system."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, beside, local, mentions

FROZEN_RANK = Cause(
    name="frozen_rank",
    explains=("hang",),
    sentence="{place} stands still while the others wait for it",
    action="look at the process on {nodes} (state in ps, py-spy dump); a stopped one goes on with kill -CONT, a stuck one needs a restart from {rewind}",
    clues=(
        Clue(2.5, local("these are behind, the others wait for them")),
        Clue(
            2.0,
            mentions(
                lambda text: "stopped process" in text or "state t" in text or "sigstop" in text, "its process is stopped", "stacks", "why"
            ),
        ),
        Clue(-2.0, beside("rank_lost")),
        Clue(-2.0, beside("agent_silent")),
    ),
)
