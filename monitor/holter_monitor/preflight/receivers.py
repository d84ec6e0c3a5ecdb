"""Whether the people would be reached: a message that says it is a test, to the receivers of the policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from holter_monitor.alerting.policy_files import chosen
from holter_monitor.notify.http import client
from holter_monitor.notify.receivers import notifier, tried
from holter_monitor.preflight.check import Check


def look(names: Sequence[str], policies: Path | None, environment: Mapping[str, str]) -> Iterator[Check]:
    """`names`: "all", or receivers of the policy. Raises `PolicyError`, `ValueError` (a policy that cannot be read)."""
    policy = chosen(policies, environment, notifier)
    with client(allow_private=policy.allow_private) as http:
        everyone = policy.receivers if "all" in names else ()
        for name in dict.fromkeys([*everyone, *(name for name in names if name != "all")]):
            what = f"receiver {name}"
            if name not in policy.receivers:
                yield Check(
                    what=what, mark="fail", found="the policy has none of this name", remedy=f"it has {', '.join(policy.receivers)}"
                )
                continue
            problem = tried(name, policy.receivers[name], http, allow_private=policy.allow_private)
            if problem is None:
                yield Check(what=what, mark="ok", found="took a test message")
            else:
                yield Check(what=what, mark="fail", found=problem, remedy="mend its address or key; until then nobody is told there")
