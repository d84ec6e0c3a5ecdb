"""A whole machine, or its network, is gone."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, beside, kind_is, says

LOST_NODE = Cause(
    name="lost_node",
    explains=("agent_silent", "rank_lost", "hang"),
    sentence="{nodes} is gone, or its network is: not even its agent is heard",
    action="look at the machine (power, kernel panic, network); replace it by a spare and restart from {rewind}",
    clues=(
        Clue(3.0, kind_is("agent_silent")),
        Clue(2.5, beside("agent_silent")),
        Clue(-1.5, says("silent", lambda count: count > 3, "{value} agents at once: rather the network or the collector")),
    ),
)
